import { expect, test } from "vitest";

import { partsOf, totalOf } from "../../src/reading/parameters";
import { layoutOf } from "../layouts";

const layout = layoutOf(3, 2);

test("cells of weights are counted if the API has no count", () => {
  const counts = Object.fromEntries(partsOf(layout, null).map(({ name, count }) => [name, count]));
  expect(counts).toEqual({ embedding: 6, layer_norm: 18, query: 36, biases: 36, up_projection: 18 });
});

test("parts are sorted by count, and tied ones are not in the total", () => {
  const model = { parameters: { by_part: { embedding: 60, query: 40, unembedding: 60 } } } as never;
  const layoutTied = layoutOf(1, 1, { tied: ["unembedding"] });
  const parts = partsOf(layoutTied, model);
  expect(totalOf(parts)).toBe(100);
  expect(parts.map(({ name, share, tied }) => [name, share, tied])).toEqual([["embedding", 0.6, false], ["unembedding", 0.6, true], ["query", 0.4, false]]);
});
