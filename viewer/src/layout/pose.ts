/** Transforms between a layout's coordinates (x right, y down, z toward the viewer) and the scene's (y up). */

import type { Box, Point } from "./box";

export type Flow = "right" | "down"; // the direction of the computation

const GAP = 0.06; // between models side by side, as a share of the larger one

/** A model's orientation and offset. Token positions run across the flow: left to right if it is down, else top to bottom. */
export class Pose {
  constructor(
    readonly flow: Flow,
    readonly offset: Point = [0, 0, 0],
  ) {}

  /** Without the offset. */
  turn([x, y, z]: Readonly<Point>): Point {
    return this.flow === "right" ? [y, -x, z] : [x, -y, z];
  }

  point(of: Readonly<Point>): Point {
    const [x, y, z] = this.turn(of);
    return [x + this.offset[0], y + this.offset[1], z + this.offset[2]];
  }

  /** The inverse of `turn`. */
  unturn([x, y, z]: Readonly<Point>): Point {
    return this.flow === "right" ? [-y, x, z] : [x, -y, z];
  }

  unpoint([x, y, z]: Readonly<Point>): Point {
    return this.unturn([x - this.offset[0], y - this.offset[1], z - this.offset[2]]);
  }

  box({ min, max }: Box): Box {
    const [a, b] = [this.point(min), this.point(max)];
    const pick = (of: (a: number, b: number) => number): Point => [of(a[0], b[0]), of(a[1], b[1]), of(a[2], b[2])];
    return { min: pick(Math.min), max: pick(Math.max) };
  }
}

/** Poses of models in a row across the flow, aligned at their start; the first is at the origin. */
export function arrange(bounds: readonly Box[], flow: Flow): Pose[] {
  const poses: Pose[] = [];
  let edge = 0;
  bounds.forEach((box, n) => {
    const { min, max } = new Pose(flow).box(box);
    const axis = flow === "right" ? 1 : 0;
    const size = max[axis] - min[axis];
    const gap = n === 0 ? 0 : GAP * Math.max(size, 200);
    const offset: Point = [0, 0, 0];
    if (n > 0) offset[axis] = flow === "right" ? edge - gap - max[axis] : edge + gap - min[axis];
    poses.push(new Pose(flow, offset));
    edge = (flow === "right" ? min[axis] : max[axis]) + offset[axis];
  });
  return poses;
}
