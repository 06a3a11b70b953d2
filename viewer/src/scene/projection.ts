/** The projection of the scene onto the window, and its inverse. */

import type { Box } from "../layout/box";
import type { Point } from "../layout/box";
import type { Camera } from "../state/view";
import { FIELD_OF_VIEW, along, basis, dot, eye, type Basis, type Viewport } from "./framing";

export interface Ray {
  origin: Point;
  direction: Point;
}

const SLOPE = Math.tan(FIELD_OF_VIEW / 2);

export class Projection {
  readonly basis: Basis;
  readonly eye: Point;

  constructor(
    readonly camera: Camera,
    readonly viewport: Viewport,
  ) {
    this.basis = basis(camera);
    this.eye = eye(camera);
  }

  /** The ray through a point of the canvas, in CSS pixels. */
  ray(x: number, y: number): Ray {
    const { width, height } = this.viewport;
    const { right, up, back } = this.basis;
    const [across, above] = [((2 * x) / width - 1) * SLOPE * (width / height), (1 - (2 * y) / height) * SLOPE];
    const to = along(along([-back[0], -back[1], -back[2]], right, across), up, above);
    const length = Math.hypot(...to);
    return { origin: this.eye, direction: [to[0] / length, to[1] / length, to[2] / length] };
  }

  /** A point of the scene on the canvas, in CSS pixels, and its depth in front of the camera. */
  project(point: Point): { x: number; y: number; depth: number } {
    const { width, height } = this.viewport;
    const { right, up, back } = this.basis;
    const at: Point = [point[0] - this.eye[0], point[1] - this.eye[1], point[2] - this.eye[2]];
    const depth = -dot(at, back);
    const scale = this.pixelsAt(depth);
    return { x: width / 2 + dot(at, right) * scale, y: height / 2 - dot(at, up) * scale, depth };
  }

  /** A lower bound of the depth of a box's visible part: its distance, foreshortened as in the window's corners. */
  nearest({ min, max }: Box): number {
    const { width, height } = this.viewport;
    const apart = ([0, 1, 2] as const).map((axis) => Math.max(min[axis] - this.eye[axis], 0, this.eye[axis] - max[axis]));
    return Math.hypot(...apart) / Math.hypot(1, SLOPE * Math.hypot(1, width / height));
  }

  /** CSS pixels that a unit of the scene covers at this depth. */
  pixelsAt(depth: number): number {
    return this.viewport.height / (2 * SLOPE * Math.max(depth, 1e-9));
  }
}
