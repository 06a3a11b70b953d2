import { describe, expect, it } from "vitest";

import { item } from "../src/checked/item";
import { pointOf, sizeOf, type Box } from "../src/layout/box";
import { cellAt, enter } from "../src/scene/pick";
import { FIELD_OF_VIEW, basis, between, dot, eye, framing } from "../src/scene/framing";
import { Runs } from "../src/scene/heap";
import { brightness } from "../src/scene/palette";
import { Pose, arrange } from "../src/layout/pose";

const BOX: Box = { min: [-377, 0, -96], max: [36, 1707, 96] };

describe.each(["right", "down"] as const)("a model that flows %s", (flow) => {
  const pose = new Pose(flow, [5, -7, 11]);
  it("is inverted exactly", () => {
    expect(pose.unpoint(pose.point([1, 2, 3]))).toEqual([1, 2, 3]);
    expect(pose.unturn(pose.turn([1, 2, 3]))).toEqual([1, 2, 3]);
  });
  it("preserves size and depth", () => {
    const sizes = sizeOf(pose.box(BOX));
    expect([...sizes].sort()).toEqual(sizeOf(BOX).sort());
    expect(sizes[2]).toBe(192);
  });
  it("places models without overlap", () => {
    const poses = arrange([BOX, BOX, { min: [-10, 0, -5], max: [10, 90, 5] }], flow);
    const boxes = poses.map((each, n) => each.box(n < 2 ? BOX : { min: [-10, 0, -5], max: [10, 90, 5] }));
    const axis = flow === "right" ? 1 : 0;
    for (let n = 1; n < boxes.length; n++) {
      const [before, after] = [item(boxes, n - 1), item(boxes, n)];
      expect(flow === "right" ? after.max[axis] < before.min[axis] : after.min[axis] > before.max[axis]).toBe(true);
    }
  });
});

describe("the camera that frames a box above the legend", () => {
  const LEGEND = 0.1; // of a window 720 pixels high
  it.each([[0.46, -0.2, 0.2], [1.6, -0.2, 0.2], [2.4, 1.2, -1]])("in a window %f times as wide as high", (aspect, azimuth, elevation) => {
    const height = 720;
    const camera = framing(BOX, { width: aspect * height, height }, { azimuth, elevation });
    const { right, up, back } = basis(camera);
    const from = eye(camera);
    const slope = Math.tan(FIELD_OF_VIEW / 2);
    let widest = 0;
    for (let n = 0; n < 8; n++) {
      const corner = pointOf((axis) => (n & (1 << axis) ? BOX.max[axis] : BOX.min[axis]) - from[axis]);
      const depth = -dot(corner, back);
      expect(depth).toBeGreaterThan(0);
      const [x, y] = [dot(corner, right) / (depth * slope * aspect), dot(corner, up) / (depth * slope)]; // from −1 to 1
      widest = Math.max(widest, Math.abs(x), Math.abs(y - LEGEND) / (1 - LEGEND));
    }
    expect(widest).toBeLessThanOrEqual(1);
    expect(widest).toBeGreaterThan(0.8);
  });

  it("is reached by interpolation from any other camera", () => {
    const window = { width: 600, height: 600 };
    const [a, b] = [framing(BOX, window), framing({ min: [1e6, 0, 0], max: [1e6 + 30, 30, 1] }, window)];
    const begin = between(a, b, 0);
    expect(begin).toEqual({ ...a, distance: begin.distance });
    expect(begin.distance).toBeCloseTo(a.distance, 6);
    const end = between(a, b, 1);
    expect(end.distance).toBeCloseTo(b.distance, 6);
    expect(end.target[0]).toBeCloseTo(b.target[0], 3);
  });
});

describe("picking", () => {
  const box: Box = { min: [0, 0, 0], max: [16.5, 24, 1.5] };
  it("returns the cell where the ray enters", () => {
    const t = enter(box, [4 * 1.5 + 0.7, 2 * 1.5 + 0.7, 100], [0, 0, -1]);
    expect(t).toBeCloseTo(98.5);
    expect(cellAt(box, [11, 16, 1], [6.7, 3.7, 1.5])).toEqual([4, 2, 0]);
  });
  it("misses boxes beside the ray or behind the camera", () => {
    expect(enter(box, [-1, 2, 100], [0, 0, -1])).toBeNull();
    expect(enter(box, [3, 2, 100], [0, 0, 1])).toBeNull();
  });
  it("returns cells inside the block at its edges", () => {
    expect(cellAt(box, [11, 16, 1], [16.5, 24, 1.5])).toEqual([10, 15, 0]);
    expect(cellAt(box, [11, 16, 1], [-1e-9, -1e-9, 0])).toEqual([0, 0, 0]);
  });
});

describe("the allocator", () => {
  it("allocates without overlap and merges freed runs", () => {
    const runs = new Runs(1000);
    const taken: { start: number; length: number }[] = [];
    for (let n = 0; n < 500; n++) {
      const length = 1 + ((n * 37) % 90);
      const start = runs.take(length);
      if (start === null) taken.splice((n * 7) % taken.length, 1).forEach((run) => runs.give(run.start, run.length));
      else {
        for (const run of taken) expect(start + length <= run.start || run.start + run.length <= start).toBe(true);
        taken.push({ start, length });
      }
    }
    for (const { start, length } of taken) runs.give(start, length);
    expect(runs.take(1000)).toBe(0);
    expect(runs.take(1)).toBeNull();
  });
});

describe.each(["linear", "log"] as const)("the %s scale", (scale) => {
  it("grows from 0 to 1 with the value", () => {
    const shades = [0, 0.001, 0.1, 0.5, 1].map((share) => brightness(share, { scale, gain: 1 }));
    expect([...shades].sort((a, b) => a - b)).toEqual(shades);
    expect([shades[0], shades[4]]).toEqual([0, 1]);
    expect(brightness(-0.5, { scale, gain: 1 })).toBe(shades[3]);
    expect(brightness(7, { scale, gain: 1 })).toBe(1);
  });
});
