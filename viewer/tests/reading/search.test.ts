import { describe, expect, test } from "vitest";

import { blockName } from "../../src/i18n/names";
import { find, parse } from "../../src/reading/search";
import { layoutOf } from "../layouts";

const layout = layoutOf(12, 4);
const models = [{ layout, name: "nano-gpt" }];
const ids = (text: string, most?: number): string[] => find(models, text, blockName, most).hits.map(({ row }) => layout.id(row));

test.each([
  ["q layer 3 head 1"],
  ["layer 3 q head 1"],
  ["l3 h1 q"],
  ["3 1 q"],
  ["Q  LAYER3 HEAD1"],
  ["q 第3層 頭1"],
  ["blocks.3.attn.heads.1.q"],
])("%s asks for the same blocks", (text) => {
  expect(ids(text)[0]).toBe("blocks.3.attn.heads.1.q");
  expect(parse(text)).toMatchObject({ layer: 3, head: 1 });
});

test("every block is found by its own id, and first", () => {
  for (let row = 0; row < layout.count; row++) expect(ids(layout.id(row))[0]).toBe(layout.id(row));
});

test("an additional word never adds matches", () => {
  const total = (text: string): number => find(models, text, blockName).total;
  for (const text of ["q", "weights", "mlp", "blocks"]) for (const more of ["layer 2", "weight", "zzz"]) expect(total(`${text} ${more}`)).toBeLessThanOrEqual(total(text));
});

test("exact names come before partial ones, and major kinds before minor ones", () => {
  const kinds = [...new Set(ids("q", 1000).map((id) => id.split(".").at(-1)))];
  expect(kinds).toEqual(["q", "q_weight", "q_bias"]);
});

test("the total includes matches beyond the limit", () => {
  expect(find(models, "q head 1", blockName, 5)).toMatchObject({ total: 36, hits: { length: 5 } });
});

test("empty and unknown queries have no matches", () => {
  for (const text of ["", "   ", "qqq", "layer 12", "q head 4", "wte layer 0"]) expect(find(models, text, blockName)).toEqual({ hits: [], total: 0 });
});

describe("of several models", () => {
  const xl = { layout: layoutOf(2, 2), name: "GPT-2 XL" };
  const two = [...models, xl];
  const found = (text: string, most?: number): string[] => find(two, text, blockName, most).hits.map(({ figure, row }) => `${figure} ${two[figure]?.layout.id(row)}`);

  test("blocks of each are found, those of the first model first", () => {
    expect(found("logits")).toEqual(["0 logits", "1 logits"]);
    expect(found("blocks.1.attn.heads.1.q").slice(0, 2)).toEqual(["0 blocks.1.attn.heads.1.q", "1 blocks.1.attn.heads.1.q"]);
    expect(found("layer 7 mlp weights")).toEqual(["0 blocks.7.mlp.in_weight"]);
  });

  test("a word of a model's name selects it", () => {
    expect(found("gpt-2 logits")).toEqual(["1 logits"]);
    expect(found("logits nano-gpt")).toEqual(["0 logits"]);
    expect(find(two, "gpt-2 xl", blockName).total).toBe(xl.layout.count);
  });

  test("every model has a share of the matches", () => {
    expect(new Set(found("q", 4).map((id) => id[0]))).toEqual(new Set(["0", "1"]));
    expect(find(two, "q", blockName, 4).total).toBe(find(models, "q", blockName).total + find([xl], "q", blockName).total);
  });
});
