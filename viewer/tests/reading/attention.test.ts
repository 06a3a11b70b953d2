import { expect, test } from "vitest";

import { brightness } from "../../src/scene/palette";
import { INITIAL } from "../../src/state/view";
import { cellOf, locate, type Cell, type Index } from "../../src/layout/place";
import { isMasked, labelStep, shadesFor } from "../../src/reading/attention";

test.each<[Index, Cell]>([
  [[[0, 0, 1, 0], [0, 0, 0, 2], [0, 1, 0, 0], [1, 0, 0, 0]], [4, 7, 0]],
  [[[0, 1, 0, 0], [1, 0, 0, 96]], [5, 3, 0]],
  [[[0, 1, 0, 12]], [0, 9, 0]],
])("cellOf is the inverse of locate", (index, cell) => expect(cellOf(index, locate(index, cell))).toEqual(cell));

test("only later positions without attention are masked", () => {
  const map = { values: Float32Array.of(1, 0, 0, 0.3, 0.3, 0.4, 0, 0.5, 0.5), width: 3, height: 3, factors: [1, 1] as [number, number] };
  expect(isMasked(map, 0, 2)).toBe(true);
  expect(isMasked(map, 1, 2)).toBe(false); // not a causal model
  expect(isMasked(map, 2, 0)).toBe(false); // earlier
});

test("labels do not overlap, and are as many as fit", () => {
  for (const pixels of [0.4, 3, 12, 25]) {
    const step = labelStep(pixels, 12);
    expect(step * pixels).toBeGreaterThanOrEqual(12);
    if (step > 1) expect((step - 1) * pixels).toBeLessThan(12);
  }
});

test("equal attention over any number of positions is visible", () => {
  for (const positions of [2, 11, 32, 33, 128, 1024]) expect(brightness(1 / positions, shadesFor(INITIAL.colour, positions))).toBeGreaterThan(0.03);
});
