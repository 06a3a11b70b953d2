/** Architectures other than GPT-2's. */

import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it, test } from "vitest";

import type { Formula, LayoutFacts } from "../../src/api/service";
import { blockName } from "../../src/i18n/names";
import { Description, filled, numbersIn, shapeOf, type Architecture, type Kind } from "../../src/layout/description";
import { describedIn } from "../../src/layout/layout";
import { find } from "../../src/reading/search";
import { cachePerToken } from "../../src/reading/parameters";
import { Formulas } from "../../src/session/formulas";
import { tourOf } from "../../src/state/steps";
import { layoutFrom } from "../layouts";

function kind(id: string, part: Kind["part"], more: Partial<Kind> = {}): Kind {
  const [stack, group] = [id.includes("{layer}") ? "layers" : null, /\{(\w*head)\}/.exec(id)?.[1] ?? null];
  const scope = group ? "head" : stack ? "layer" : "model";
  return { id, name: id, role: "activation", scope, dims: ["T", "C", "B"], minor: false, tensor: null, stack, group, step: null, part, parameters: null, ...more };
}

/** Grouped-query attention: six query heads and two key/value heads. */
const GROUPED: Architecture = {
  kinds: [
    kind("tokens", "tokens"),
    kind("layers.{layer}.self_attn.heads.{head}.q", "query"),
    kind("layers.{layer}.self_attn.kv_heads.{kv_head}.k", "key"),
    kind("layers.{layer}.self_attn.kv_heads.{kv_head}.v", "value"),
    kind("layers.{layer}.self_attn.heads.{head}.scores", "scores"),
    kind("layers.{layer}.self_attn.heads.{head}.pattern", "pattern"),
    kind("layers.{layer}.out", "resid"),
    kind("next", "probs"),
  ],
  stacks: [{ name: "layers", layers: 3 }],
  groups: [{ name: "head", count: 6, pattern: "heads.{head}" }, { name: "kv_head", count: 2, pattern: "kv_heads.{kv_head}" }],
  steps: [
    { id: "rotary", name: "Rotary positions", text: "Each pair of numbers is turned.", formula: "", kinds: ["layers.{layer}.self_attn.heads.{head}.q"], from: [] },
    { id: "scores", name: "", text: "", formula: "", kinds: ["layers.{layer}.self_attn.heads.{head}.scores"], from: ["layers.{layer}.self_attn.heads.{head}.q", "layers.{layer}.self_attn.kv_heads.{kv_head}.k"] },
    { id: "probs", name: "", text: "", formula: "", kinds: ["next"], from: ["layers.{layer}.out"] },
  ],
  context: 64,
  activation: "silu",
  tied: [],
};

const description = new Description(GROUPED);
const layout = layoutFrom(description);

describe("an id", () => {
  it.each(["tokens", "layers.2.out", "layers.11.self_attn.kv_heads.3.k"])("%s is made again from its shape and its numbers", (id) => {
    const numbers = numbersIn(id);
    expect(numbers.reduce((shape, n) => shape.replace("*", String(n)), shapeOf(id))).toBe(id);
  });

  it("without its numbers equals its pattern", () => {
    const pattern = "layers.{layer}.self_attn.kv_heads.{kv_head}.k";
    expect(shapeOf(filled(pattern, 4, 1))).toBe(shapeOf(pattern));
    expect(numbersIn(filled(pattern, 4, 1))).toEqual([4, 1]);
    expect(shapeOf("mlp.fc1.weight")).toBe("mlp.fc1.weight"); // digits in a name are part of it
  });
});

describe("a layout with heads that share their keys", () => {
  it("returns every block by its id, and null beyond a group's last member", () => {
    for (let row = 0; row < layout.count; row++) expect(layout.row(layout.id(row))).toBe(row);
    expect(layout.row("layers.0.self_attn.kv_heads.1.k")).not.toBeNull();
    expect(layout.row("layers.0.self_attn.kv_heads.2.k")).toBeNull();
    expect(layout.row("layers.3.out")).toBeNull();
    expect(layout.row("blocks.0.out")).toBeNull();
  });

  it("is searchable", () => {
    const ids = (text: string): string[] => find([{ layout, name: "m" }], text, blockName).hits.map(({ row }) => layout.id(row));
    expect(ids("k layer 2 head 1")[0]).toBe("layers.2.self_attn.kv_heads.1.k");
    for (let row = 0; row < layout.count; row++) expect(ids(layout.id(row))[0]).toBe(layout.id(row));
  });

  it("counts the KV cache by key/value heads", () => {
    expect(cachePerToken(layout)).toBe(2 * (3 * 2 * layout.widthOf("key") + 3 * 2 * layout.widthOf("value")));
  });

  it("has formulas that read the shared key head", async () => {
    const [q, k] = ["layers.1.self_attn.heads.0.q", "layers.1.self_attn.kv_heads.0.k"];
    const formula = { op: "dot", inputs: [{ block: q, index: [] }, { block: k, index: [] }] } as unknown as Formula;
    const facts = { blocks: [{ id: "layers.1.self_attn.heads.0.scores", formula }] } as unknown as LayoutFacts;
    const formulas = new Formulas({ layoutFormulas: () => Promise.resolve(facts) });
    const read = async (head: number): Promise<string[] | undefined> => {
      const row = layout.row(`layers.2.self_attn.heads.${head}.scores`) ?? -1;
      return (await formulas.of(layout, row, new AbortController().signal))?.inputs.map(({ block }) => block);
    };
    expect(await read(2)).toEqual(["layers.2.self_attn.heads.2.q", "layers.2.self_attn.kv_heads.0.k"]);
    expect(await read(3)).toEqual(["layers.2.self_attn.heads.3.q", "layers.2.self_attn.kv_heads.1.k"]);
    expect(await read(5)).toEqual(["layers.2.self_attn.heads.5.q", "layers.2.self_attn.kv_heads.1.k"]);
  });
});

describe("the tour of an architecture", () => {
  const steps = tourOf(description);

  it("has the description's steps in their order", () => {
    expect(steps.map(({ id }) => id)).toEqual(["start", "rotary", "scores", "layers", "probs", "choose", "again"]);
    expect(steps.at(-2)?.from).toEqual(["next"]);
  });

  it("shows each step's blocks in front, and those that they read", () => {
    const shown = steps.map((step) => description.blocksOf(step));
    expect(shown[2]).toEqual({ computed: ["layers.0.self_attn.heads.5.scores"], read: ["layers.0.self_attn.heads.5.q", "layers.0.self_attn.kv_heads.1.k"] });
    expect(shown[4]).toEqual({ computed: ["next"], read: ["layers.2.out"] });
  });

  it("assumes nothing about missing parts", () => {
    const none = new Description({ ...GROUPED, kinds: [], steps: [] });
    expect(tourOf(none).map(({ id }) => id)).toEqual(["start"]);
    expect([none.heads, none.part("logits"), layout.blockOf("embedding"), layout.widthOf("logits")]).toEqual([1, null, null, 0]);
  });
});

test("a layout's file describes its architecture", () => {
  expect(describedIn({ metadata: { architecture: JSON.stringify(GROUPED) } })).toEqual(description);
  expect(() => describedIn({ metadata: {} })).toThrow("architecture");
});

test("enough heads are sampled for two members of each group", () => {
  const heads = (...counts: number[]): number => new Description({ ...GROUPED, groups: GROUPED.groups.map((group, n) => ({ ...group, count: counts[n] ?? 1 })) }).sampledHeads;
  expect([heads(6, 2), heads(9, 3), heads(6, 6), heads(6, 1), heads(1, 1)]).toEqual([4, 4, 2, 2, 1]);
  expect([0, 1].map((member) => description.headOf("kv_head", member))).toEqual([0, 3]);
});

test("no module contains names of GPT-2's blocks, tensors or sizes", () => {
  const names = /n_(?:layer|head|embd|inner|positions)|d_head|vocab_size|\bblocks\.[{\d$\\]|attn\.|\bmlp\.|resid_|\bln_|\blm_head|\bw[tp]e\b|"gpt2"/;
  const root = resolve(import.meta.dirname, "../../src");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"));
  const code = (file: string): string => readFileSync(join(root, file), "utf8").replace(/\/\*\*[\s\S]*?\*\/|\/\/ .*$/gm, "");
  expect(files.filter((file) => names.test(code(file)))).toEqual([]);
});
