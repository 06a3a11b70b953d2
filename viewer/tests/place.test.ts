import { item } from "../src/checked/item";
import { describe, expect, it } from "vitest";

import { axesOf, gather, locate, sliceOf, transpose, whole, type Index } from "../src/layout/place";

const Q: Index = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 1, 0, 0]]; // [B, T, H, A] of head 2: x is T, y is A
const QUERY_WEIGHT: Index = [[1, 0, 0, 0], [0, 1, 0, 96]]; // [C, 3·H·A]: x is C, y a head's columns
const SCORES: Index = [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]; // [B, H, T, T]: transposed

describe("a block's index map", () => {
  it("locates a cell in the tensor", () => {
    expect(locate(Q, [4, 7, 0])).toEqual([0, 4, 2, 7]);
    expect(locate(QUERY_WEIGHT, [4, 7, 0])).toEqual([4, 103]);
  });

  it("becomes a slice that reads exactly its cells", () => {
    expect(sliceOf(Q, whole([11, 16]))).toBe("0,0:11,2,0:16");
    expect(sliceOf(QUERY_WEIGHT, { i0: 8, j0: 0, i1: 24, j1: 16 }, 4)).toBe("8:24:4,96:112:4");
  });

  it("determines the axes of the slice, in the tensor's order", () => {
    expect(axesOf(Q)).toEqual(["i", "j"]);
    expect(axesOf(SCORES)).toEqual(["j", "i"]);
    expect(axesOf([[0, 1, 0, 32]])).toEqual(["j"]);
  });

  it.each<[string, Index, number[], [number, number, number]]>([
    ["of one head", Q, [1, 5, 3, 4], [5, 4, 1]],
    ["of some columns", [[1, 0, 0, 0], [0, 1, 0, 3]] as Index, [4, 8], [4, 5, 1]],
    ["turned", SCORES, [1, 2, 3, 3], [3, 3, 1]],
    ["in one column", [[0, 1, 0, 2]] as Index, [6], [1, 4, 1]],
  ])("gathers what locate finds: %s", (_, index, shape, cells) => {
    const size = shape.reduce((a, b) => a * b);
    const tensor = Float32Array.from(Array(size).keys());
    const gathered = gather(tensor, shape, index, cells);
    for (let j = 0; j < cells[1]; j++)
      for (let i = 0; i < cells[0]; i++) {
        const from = locate(index, [i, j, 0]).reduce((offset, n, axis) => offset * item(shape, axis) + n, 0);
        expect(gathered[j * cells[0] + i]).toBe(tensor[from]);
      }
  });
});

it("transposing twice is the identity", () => {
  const values = Float32Array.from({ length: 12 }, (_, n) => n);
  expect(transpose(transpose(values, 3, 4), 4, 3)).toEqual(values);
  expect([...transpose(values, 3, 4)].slice(0, 3)).toEqual([0, 4, 8]);
});
