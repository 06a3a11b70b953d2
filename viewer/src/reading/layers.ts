/** The layer nearest to the camera. */

import type { Layout, Span } from "../layout/layout";
import { AXES, type Point } from "../layout/box";
import type { Pose } from "../layout/pose";

/** The span nearest to a point of the scene; of several that contain it, the one with the nearest centre. */
export function nearestSpan(layout: Layout, pose: Pose, point: Point): number {
  const far = layout.spans.map((span, n) => {
    const { min, max } = pose.box(layout.spanBox(span));
    const outside = Math.hypot(...AXES.map((axis) => Math.max(min[axis] - point[axis], point[axis] - max[axis], 0)));
    const middle = Math.hypot(...AXES.map((axis) => (min[axis] + max[axis]) / 2 - point[axis]));
    return { n, outside, middle };
  });
  return far.reduce((a, b) => (b.outside < a.outside || (b.outside === a.outside && b.middle < a.middle) ? b : a)).n;
}

/** The ids of all blocks of a span. */
export function blocksOf(layout: Layout, { start, end }: Span): string[] {
  return Array.from({ length: end - start }, (_, n) => layout.id(start + n));
}
