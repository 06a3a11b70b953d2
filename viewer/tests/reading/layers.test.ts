import { expect, test } from "vitest";

import { nearestSpan } from "../../src/reading/layers";
import type { Point } from "../../src/layout/box";
import { Pose } from "../../src/layout/pose";
import type { Layout } from "../../src/layout/layout";

const box = (x: number, y: number, size: number) => ({ min: [x, y, 0], max: [x + size, y + size, 1] });
const boxes = [box(0, 0, 10), box(0, 20, 100), box(0, 130, 10)];
const layout = { spans: [0, 1, 2], spanBox: (n: number) => boxes[n] } as unknown as Layout;

test.each<[string, Point, number]>([
  ["in a layer, however far from its middle", [1, -21, 0], 1],
  ["between two, the nearer one", [1, -12, 0], 0],
  ["far beyond the last, the last", [0, -900, 50], 2],
])("a camera that looks at a point %s is at that layer", (_, point, span) => {
  expect(nearestSpan(layout, new Pose("down"), point)).toBe(span);
});

test("for either flow", () => {
  expect(nearestSpan(layout, new Pose("right"), [60, 1, 0])).toBe(1);
});
