import { describe, expect, it } from "vitest";

import { item, present } from "../../src/checked/item";
import { AXES, pointOf, sizeOf, unite, type Box, type Point } from "../../src/layout/box";
import type { Layout } from "../../src/layout/layout";
import { sight } from "../../src/tour/sight";

const CELL = 1.5;

/** A layout of blocks with these positions and sizes in cells. */
function layoutOf(blocks: Record<string, { at: [number, number, number]; cells: [number, number] }>): Layout {
  const ids = Object.keys(blocks);
  const block = (row: number): { at: Point; cells: [number, number] } => present(blocks[item(ids, row)], "the block");
  const cellsOf = (row: number): Point => [...block(row).cells, 1];
  const box = (row: number): Box => {
    const { at: min } = block(row);
    return { min, max: pointOf((axis) => min[axis] + CELL * cellsOf(row)[axis]) };
  };
  const row = (id: string): number | null => (id in blocks ? ids.indexOf(id) : null);
  return { cell: CELL, row, cellsOf, box, around: (of: string[]) => unite(of.map((id) => box(row(id)!))) } as unknown as Layout;
}

const size = sizeOf;
const holds = (outer: Box, inner: Box): boolean => AXES.every((axis) => outer.min[axis] <= inner.min[axis] && inner.max[axis] <= outer.max[axis]);

describe("the box in view", () => {
  it("contains all small blocks that are close together", () => {
    const layout = layoutOf({ a: { at: [0, 0, 0], cells: [11, 48] }, b: { at: [0, 90, 0], cells: [11, 48] } });
    expect(sight(layout, ["a", "b"])).toEqual(layout.around(["a", "b"]));
  });

  it("is a small block alone if its inputs are too far away", () => {
    const layout = layoutOf({ scores: { at: [0, 0, 0], cells: [10, 10] }, q: { at: [0, -170, 150], cells: [10, 64] } });
    expect(sight(layout, ["scores", "q"])).toEqual(layout.around(["scores"]));
  });

  it.each([[true, 300], [false, 40]])("of a column of a thousand tokens is its beginning, so near that they can be seen (values: %s)", (values, most) => {
    const seen = sight(layoutOf({ tokens: { at: [0, 0, 0], cells: [2048, 1] } }), ["tokens"], null, values)!;
    expect(seen.min).toEqual([0, 0, 0]);
    expect(size(seen)[0]).toBeLessThan(most * CELL);
    expect(size(seen)[0]).toBeGreaterThan(10 * CELL);
  });

  it("shows a part of a long strip of values", () => {
    const [high, wide] = size(sight(layoutOf({ strip: { at: [0, 0, 0], cells: [10, 768] } }), ["strip"])!);
    expect(wide / high).toBeLessThanOrEqual(10);
  });

  it("is a whole large block without values, with inputs nearby", () => {
    const layout = layoutOf({ y: { at: [0, 27e3, 0], cells: [2048, 12288] }, x: { at: [4e3, 1e3, 0], cells: [2048, 12288] }, far: { at: [0, 9e5, 0], cells: [2048, 12288] } });
    const seen = sight(layout, ["y", "x", "far"], null, false)!;
    expect(holds(seen, layout.around(["x", "y"])!)).toBe(true);
    expect(seen.max[1]).toBeLessThan(9e5);
  });

  it("ignores heads far behind", () => {
    const heads = Object.fromEntries(Array.from({ length: 96 }, (_, n) => [`z${n}`, { at: [0, -3e3, 4700 * (n - 48)] as [number, number, number], cells: [2048, 128] as [number, number] }]));
    const layout = layoutOf({ out: { at: [0, 0, 0], cells: [2048, 12288] }, ...heads });
    expect(size(sight(layout, ["out", ...Object.keys(heads)], null, false)!)[2]).toBeLessThan(2.5 * 12288 * CELL);
  });

  it("surrounds a given cell", () => {
    const seen = sight(layoutOf({ probs: { at: [0, 0, 0], cells: [10, 50257] } }), ["probs"], [6, 31000, 0])!;
    expect((seen.min[1] + seen.max[1]) / 2).toBeCloseTo(31000.5 * CELL);
    expect(size(seen)[1]).toBeLessThan(100 * CELL);
  });

  it("is null for unknown blocks", () => expect(sight(layoutOf({}), ["a"])).toBeNull());
});
