import { expect, test } from "vitest";

import { blockName } from "../../src/i18n/names";
import { find, parse } from "../../src/reading/search";
import { layoutOf } from "../layouts";

const layout = layoutOf(12, 4);
const ids = (text: string, most?: number): string[] => find(layout, text, blockName, most).rows.map((row) => layout.id(row));

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

test("a word more never finds more", () => {
  const total = (text: string): number => find(layout, text, blockName).total;
  for (const text of ["q", "weights", "mlp", "blocks"]) for (const more of ["layer 2", "weight", "zzz"]) expect(total(`${text} ${more}`)).toBeLessThanOrEqual(total(text));
});

test("what is named so comes before what only contains it, and what matters before what does not", () => {
  const kinds = [...new Set(ids("q", 1000).map((id) => id.split(".").at(-1)))];
  expect(kinds).toEqual(["q", "q_weight", "q_bias"]);
});

test("the total counts what the list has no room for", () => {
  expect(find(layout, "q head 1", blockName, 5)).toMatchObject({ total: 36, rows: { length: 5 } });
});

test("nothing is found for nothing, and for what is not there", () => {
  for (const text of ["", "   ", "qqq", "layer 12", "q head 4", "wte layer 0"]) expect(find(layout, text, blockName)).toEqual({ rows: [], total: 0 });
});
