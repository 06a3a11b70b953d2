import { item } from "../../src/checked/item";
import { describe, expect, it } from "vitest";

import { Room, boundsOf, lineSpot, nameSpot, overlap, textRect, type Spot } from "../../src/scene/labels";

const WINDOW = { width: 800, height: 500 };
const TEXT = { width: 90, height: 11 };
const block = (x: number, y: number, w: number, h: number) => ({ x, y, w, h });

describe("the name of a block", () => {
  it("is at the block's corner if that is in the window", () => {
    expect(nameSpot({ x: 300, y: 200 }, block(300, 200, 50, 50), TEXT, WINDOW)).toEqual({ x: 300, y: 200 });
  });

  it("is moved left to fit into the window", () => {
    expect(nameSpot({ x: 790, y: 200 }, block(790, 200, 50, 50), TEXT, WINDOW)!.x + TEXT.width).toBeLessThanOrEqual(WINDOW.width);
  });

  it.each([
    ["left of the window", block(-500, 200, 900, 80)],
    ["above it", block(300, -900, 60, 2000)],
    ["both", block(-4000, -4000, 9000, 9000)],
  ])("stands in the window and on the block where its corner is %s", (_, seen) => {
    const spot = nameSpot({ x: seen.x, y: seen.y }, seen, TEXT, WINDOW)!;
    const rect = textRect(spot, TEXT);
    expect([rect.x >= 0, rect.y >= 0]).toEqual([true, true]);
    expect(overlap(rect, { ...seen, y: seen.y - 20, h: seen.h + 20 })).toBe(true);
  });

  it.each([
    ["left of the window", block(-500, 200, 520, 80)],
    ["above it", block(300, -900, 60, 905)],
    ["right of it", block(801, 20, 60, 60)],
    ["below it", block(20, 501, 60, 60)],
  ])("is left out where all that is seen of the block, or nearly all, is %s", (_, seen) => {
    expect(nameSpot({ x: seen.x, y: seen.y }, seen, TEXT, WINDOW)).toBeNull();
  });
});

describe("the label of a row", () => {
  it("is left of it", () => expect(lineSpot({ x: 200, y: 90 }, { x: 700, y: 80 }, 40)).toEqual({ x: 155, y: 90 }));

  it("is where the row enters the window", () => {
    const spot = lineSpot({ x: -990, y: 0 }, { x: 1010, y: 200 }, 40)!;
    expect(spot.x).toBeGreaterThanOrEqual(0);
    expect(spot.y).toBeCloseTo((spot.x + 990) / 10);
  });

  it("is omitted if the row does not enter the window", () => expect(lineSpot({ x: -900, y: 0 }, { x: 20, y: 0 }, 40)).toBeNull());
});

describe("room for names", () => {
  it("is given out once: names of blocks behind each other are stacked", () => {
    const room = new Room();
    const places: Spot[] = [0, 1, 2].map((n) => ({ x: 300 + 6 * n, y: 200 }));
    const rects = places.map((place) => {
      const lift = [0, 1, 2].find((lines) => room.free(textRect({ ...place, y: place.y - 16 * lines }, TEXT)))!;
      const rect = textRect({ ...place, y: place.y - 16 * lift }, TEXT);
      room.take(rect);
      return rect;
    });
    expect(rects.some((rect, n) => rects.slice(0, n).some((other) => overlap(rect, other)))).toBe(false);
    expect(room.free(textRect(item(places, 0), TEXT))).toBe(false);
    room.clear();
    expect(room.free(textRect(item(places, 0), TEXT))).toBe(true);
  });

  it("has bounds that contain all points", () => {
    expect(boundsOf([{ x: 3, y: 9 }, { x: -1, y: 4 }, { x: 2, y: 12 }])).toEqual({ x: -1, y: 4, w: 4, h: 8 });
  });
});
