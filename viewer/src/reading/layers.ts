/** From layer to layer: which one the camera is at, and where the next one is. */

import type { Layout, Span } from "../layout/layout";
import type { Pose } from "../scene/pose";

/** The span whose middle is nearest to a point of the scene. */
export function nearestSpan(layout: Layout, pose: Pose, point: readonly number[]): number {
  const far = layout.spans.map((span) => {
    const { min, max } = pose.box(layout.spanBox(span));
    return Math.hypot(...min.map((low, axis) => (low + max[axis]) / 2 - point[axis]));
  });
  return far.indexOf(Math.min(...far));
}

/** The blocks of a span that have a size to be seen. */
export function blocksOf(layout: Layout, { start, end }: Span): string[] {
  return Array.from({ length: end - start }, (_, n) => layout.id(start + n));
}
