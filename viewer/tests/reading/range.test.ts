import { expect, test } from "vitest";

import { extentOf, rounded } from "../../src/reading/range";

const of = (min: number | null, max: number | null) => ({ min, max }) as never;
const tensors = { embed: of(-1, 2), "blocks.0.attn.q": of(-9, 3), "blocks.1.attn.q": of(-4, 5), "blocks.1.attn.scores": of(null, 1) };

test("only tensors of the given layers count", () => {
  expect(extentOf(tensors, new Set([-1]))).toEqual({ min: -1, max: 2, absmax: 2 });
  expect(extentOf(tensors, new Set([0, 1]))).toEqual({ min: -9, max: 5, absmax: 9 });
  expect(extentOf(tensors, new Set([7]))).toBeNull();
});

test.each([
  [9.19836, 9.2],
  [10, 10],
  [0.00012345, 0.00013],
  [87_401, 88_000],
  [0, 1],
])("a range of %d is typed as %d", (value, typed) => expect(rounded(value)).toBe(typed));
