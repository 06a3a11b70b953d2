import { expect, test } from "vitest";

import { brightness } from "../../src/scene/palette";
import { INITIAL } from "../../src/state/view";
import { cellOf, locate, type Cell, type Index } from "../../src/layout/place";
import { labelStep, shadesFor } from "../../src/reading/attention";

test.each<[Index, Cell]>([
  [[[0, 0, 1, 0], [0, 0, 0, 2], [0, 1, 0, 0], [1, 0, 0, 0]], [4, 7, 0]],
  [[[0, 1, 0, 0], [1, 0, 0, 96]], [5, 3, 0]],
  [[[0, 1, 0, 12]], [0, 9, 0]],
])("the cell of a place is the one that lies there", (index, cell) => expect(cellOf(index, locate(index, cell))).toEqual(cell));

test("labels have the room that they need, and are as many as have", () => {
  for (const pixels of [0.4, 3, 12, 25]) {
    const step = labelStep(pixels, 12);
    expect(step * pixels).toBeGreaterThanOrEqual(12);
    if (step > 1) expect((step - 1) * pixels).toBeLessThan(12);
  }
});

test("an even share of any number of positions can be told from none", () => {
  for (const positions of [2, 11, 32, 33, 128, 1024]) expect(brightness(1 / positions, shadesFor(INITIAL.colour, positions))).toBeGreaterThan(0.03);
});
