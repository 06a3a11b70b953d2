/** From layer to layer: which one the camera is at, and where the next one is. */

import type { Layout, Span } from "../layout/layout";
import type { Pose } from "../layout/pose";

/** The span whose corners are nearest to a point of the scene; of several that it lies in, that whose middle is. */
export function nearestSpan(layout: Layout, pose: Pose, point: readonly number[]): number {
  const far = layout.spans.map((span) => {
    const { min, max } = pose.box(layout.spanBox(span));
    const outside = Math.hypot(...point.map((at, axis) => Math.max(min[axis] - at, at - max[axis], 0)));
    return [outside, Math.hypot(...point.map((at, axis) => (min[axis] + max[axis]) / 2 - at))];
  });
  const best = far.reduce((a, b) => (b[0] < a[0] || (b[0] === a[0] && b[1] < a[1]) ? b : a));
  return far.indexOf(best);
}

/** The ids of all blocks of a span. */
export function blocksOf(layout: Layout, { start, end }: Span): string[] {
  return Array.from({ length: end - start }, (_, n) => layout.id(start + n));
}
