/** Points and boxes in three dimensions. */

export type Point = [number, number, number];

export const AXES = [0, 1, 2] as const;

/** Opposite corners of a box with sides along the axes. */
export interface Box {
  min: Point;
  max: Point;
}

/** A point whose coordinates are computed axis by axis. */
export function pointOf(coordinate: (axis: 0 | 1 | 2) => number): Point {
  return [coordinate(0), coordinate(1), coordinate(2)];
}

/** The length of a box along each axis. */
export function sizeOf({ min, max }: Box): Point {
  return pointOf((axis) => max[axis] - min[axis]);
}

/** The smallest box that contains all of these. */
export function unite(boxes: readonly Box[]): Box {
  return {
    min: pointOf((axis) => Math.min(...boxes.map(({ min }) => min[axis]))),
    max: pointOf((axis) => Math.max(...boxes.map(({ max }) => max[axis]))),
  };
}
