import { beforeEach, describe, expect, it } from "vitest";

import type { Formula, LayoutFacts } from "../../src/api/service";
import { Formulas } from "../../src/session/formulas";
import { layoutOf } from "../layouts";

const LAYERS = 6;
const signal = new AbortController().signal;
const made = (...blocks: string[]): Formula => ({ op: "add", over: null, inputs: blocks.map((block) => ({ block, index: [] })) }) as unknown as Formula;

/** An API response: the blocks of a layer, and those before the first and after the last layer. */
function told(layer: number): LayoutFacts {
  const from = layer === 0 ? "embedding" : `blocks.${layer - 1}.resid_post`;
  const blocks = [
    { id: `blocks.${layer}.resid_post`, formula: made(from, `blocks.${layer}.attn.heads.0.z`) },
    { id: `blocks.${layer}.attn.heads.0.q`, formula: made(`blocks.${layer}.attn.heads.0.q_weight`) },
    { id: `blocks.${layer}.mlp.in_weight`, formula: null },
    ...(layer === 0 ? [{ id: "embedding", formula: made("wte") }] : []),
    ...(layer === LAYERS - 1 ? [{ id: "logits", formula: made(`blocks.${layer}.resid_post`) }] : []),
  ];
  return { blocks } as unknown as LayoutFacts;
}

describe("formulas", () => {
  const layout = layoutOf(LAYERS, 2);
  let asked: number[];
  let formulas: Formulas;
  const of = async (id: string): Promise<string | undefined> => (await formulas.of(layout, layout.row(id)!, signal))?.inputs[0]?.block;

  beforeEach(() => {
    asked = [];
    formulas = new Formulas({ layoutFormulas: (_, layer) => (asked.push(layer), Promise.resolve(told(layer))) });
  });

  it("are requested once for all later layers and heads, and have each one's own inputs", async () => {
    for (let layer = 1; layer < LAYERS; layer++) {
      expect(await of(`blocks.${layer}.resid_post`)).toBe(`blocks.${layer - 1}.resid_post`);
      expect(await of(`blocks.${layer}.attn.heads.1.q`)).toBe(`blocks.${layer}.attn.heads.1.q_weight`);
    }
    expect(asked).toEqual([1]);
  });

  it("of the first layer and of blocks outside layers are unchanged", async () => {
    expect(await of("blocks.0.resid_post")).toBe("embedding");
    expect(await of("embedding")).toBe("wte");
    expect(await of("logits")).toBe(`blocks.${LAYERS - 1}.resid_post`);
    expect(asked).toEqual([0, LAYERS - 1]);
  });

  it("of blocks outside heads read head 0", async () => {
    const formula = await formulas.of(layout, layout.row("blocks.4.resid_post")!, signal);
    expect(formula?.inputs[1]?.block).toBe("blocks.4.attn.heads.0.z");
  });

  it("do not exist for weights", async () => {
    expect(await of("blocks.3.mlp.in_weight")).toBeUndefined();
  });
});
