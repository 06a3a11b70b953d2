/** The geometry of cameras. */

import { AXES, pointOf, sizeOf, type Box, type Point } from "../layout/box";
import type { Camera } from "../state/view";

export const FIELD_OF_VIEW = (32 * Math.PI) / 180; // of the window's height
const HOME = { azimuth: -0.22, elevation: 0.24 };
const MARGIN = 1.08;
const LEGEND = 72; // pixels that the legend takes at the bottom of the window

export interface Basis {
  right: Point;
  up: Point;
  back: Point; // from the target to the camera
}

export function basis({ azimuth, elevation }: Pick<Camera, "azimuth" | "elevation">): Basis {
  const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
  return { right: [ca, 0, -sa], up: [-sa * se, ce, -ca * se], back: [sa * ce, se, ca * ce] };
}

export const dot = (a: Point, b: Point): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

export function along(from: Point, direction: Point, by: number): Point {
  return [from[0] + by * direction[0], from[1] + by * direction[1], from[2] + by * direction[2]];
}

export function eye(camera: Camera): Point {
  return along(camera.target, basis(camera).back, camera.distance);
}

export interface Viewport {
  width: number; // CSS pixels
  height: number;
}

/** The camera that shows a box from a side, as large as possible above the legend. */
export function framing(box: Box, viewport: Viewport, side: Pick<Camera, "azimuth" | "elevation"> = HOME): Camera {
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => pointOf((axis) => (n & (1 << axis) ? box.max[axis] : box.min[axis])));
  const target = pointOf((axis) => (box.min[axis] + box.max[axis]) / 2);
  const distance = Math.max(...sizeOf(box)) * 2 || 1;
  let camera: Camera = { target, distance, azimuth: side.azimuth, elevation: side.elevation };
  for (let n = 0; n < 12; n++) camera = fit(camera, corners, viewport);
  return camera;
}

/** One iteration toward the camera whose window just contains these points. */
function fit(camera: Camera, points: Point[], { width, height }: Viewport): Camera {
  const aspect = width / height;
  const below = Math.min(LEGEND / height, 0.25); // the share of the window reserved for the legend
  const { right, up, back } = basis(camera);
  const slope = Math.tan(FIELD_OF_VIEW / 2);
  const from = eye(camera);
  const seen = points.map((point) => {
    const at = pointOf((axis) => point[axis] - from[axis]);
    const depth = Math.max(-dot(at, back), camera.distance * 0.05) * slope;
    return { x: dot(at, right) / (depth * aspect), y: dot(at, up) / depth };
  });
  const [xs, ys] = [seen.map(({ x }) => x), seen.map(({ y }) => y)];
  const middle = (of: number[]): number => (Math.max(...of) + Math.min(...of)) / 2;
  const half = (of: number[]): number => (Math.max(...of) - Math.min(...of)) / 2;
  const unit = slope * camera.distance;
  const target = along(along(camera.target, right, middle(xs) * unit * aspect), up, (middle(ys) - below) * unit);
  return { ...camera, target, distance: camera.distance * Math.max(half(xs), half(ys) / (1 - below), 1e-6) * MARGIN };
}

/** Interpolates two cameras, t from 0 to 1: distances logarithmically, zooming out on long flights. */
export function between(a: Camera, b: Camera, t: number): Camera {
  const ease = t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2;
  const mix = (x: number, y: number): number => x + (y - x) * ease;
  const apart = Math.hypot(...AXES.map((axis) => a.target[axis] - b.target[axis]));
  const hop = Math.max(0, Math.log(Math.max(apart, 1e-9) / (2 * Math.max(a.distance, b.distance)))) + 0;
  const arc = hop * 4 * ease * (1 - ease);
  return {
    target: [mix(a.target[0], b.target[0]), mix(a.target[1], b.target[1]), mix(a.target[2], b.target[2])],
    distance: Math.exp(mix(Math.log(a.distance), Math.log(b.distance)) + arc),
    azimuth: mix(a.azimuth, b.azimuth),
    elevation: mix(a.elevation, b.elevation),
  };
}
