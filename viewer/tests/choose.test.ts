import { describe, expect, it } from "vitest";

import { MOST, choose, count, scaleOf, suffices } from "../src/detail/choose";
import { whole } from "../src/layout/place";

const SIZES = [[11, 48], [12288, 128], [12288, 49152], [1, 50257], [2048, 2048]] as const;
const PIXELS = [0.001, 0.02, 0.3, 1, 4, 30];

describe.each(SIZES)("of a block of %i × %i cells", (width, height) => {
  const cells = [width, height, 1] as const;
  const middle = { i0: Math.floor(width / 2), j0: Math.floor(height / 2), i1: Math.min(width, Math.floor(width / 2) + 40), j1: Math.min(height, Math.floor(height / 2) + 30) };

  it.each(PIXELS)("seen at %f pixels a cell, never more is fetched than one read may have", (pixels) => {
    for (const { part, factor } of choose(cells, middle, pixels)) expect(count(part, factor)).toBeLessThanOrEqual(MOST);
  });

  it.each(PIXELS)("seen at %f pixels a cell, what is in view is covered, and the choice suffices for itself", (pixels) => {
    const choices = choose(cells, middle, pixels);
    const { part } = choices.at(-1)!;
    expect(part.i0).toBeLessThanOrEqual(middle.i0);
    expect(part.j0).toBeLessThanOrEqual(middle.j0);
    expect(part.i1).toBeGreaterThanOrEqual(middle.i1);
    expect(part.j1).toBeGreaterThanOrEqual(middle.j1);
    for (const choice of choices) {
      expect(suffices(choice, choice)).toBe(true);
      expect(suffices({ ...choice, factor: 2 * choice.factor }, choice)).toBe(false);
      expect(suffices({ ...choice, part: { ...choice.part, i1: choice.part.i1 - 1 } }, choice)).toBe(false);
    }
  });
});

describe("level of detail", () => {
  it("shows every cell that covers a pixel or more", () => {
    expect(choose([12288, 128], { i0: 100, j0: 0, i1: 300, j1: 100 }, 5).at(-1)).toMatchObject({ factor: 1, fine: true });
    expect(choose([48, 192], whole([48, 192]), 1)).toEqual([{ part: whole([48, 192]), factor: 1, fine: false }]);
  });

  it("halves the resolution at twice the distance", () => {
    const factors = [1, 0.5, 0.25, 0.125].map((pixels) => choose([200, 200], whole([200, 200]), pixels)[0]?.factor);
    expect(factors).toEqual([1, 2, 4, 8]);
  });

  it("fetches nothing for a small camera move", () => {
    const cells = [12288, 12288] as const;
    const before = choose(cells, { i0: 1000, j0: 1000, i1: 1100, j1: 1100 }, 8);
    expect(choose(cells, { i0: 1003, j0: 1002, i1: 1103, j1: 1102 }, 8)).toEqual(before);
  });
});

describe("a block's colour scale", () => {
  it("is the largest value if none is negative", () => expect(scaleOf(Float32Array.of(0, 0.25, 1))).toBe(1));
  it("does not follow a few outliers", () => {
    const values = Float32Array.from({ length: 1000 }, (_, n) => (n % 2 ? 1 : -1));
    values[7] = 50;
    expect(scaleOf(values)).toBeLessThan(5);
  });
  it("ignores masked values", () => expect(scaleOf(Float32Array.of(-Infinity, 2, 1))).toBe(2));
});
