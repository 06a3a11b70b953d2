/** Placement of texts over the picture: inside the window, without overlap. All lengths are CSS pixels. */

export interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Spot {
  x: number;
  y: number;
}

export interface Area {
  width: number;
  height: number;
}

const EDGE = 10; // the distance from the window's edge of a name moved into the window

/** The parts of the window occupied by texts. */
export class Room {
  #taken: Rect[] = [];

  clear(): void {
    this.#taken = [];
  }

  free(rect: Rect): boolean {
    return !this.#taken.some((other) => overlap(rect, other));
  }

  take(rect: Rect): void {
    this.#taken.push(rect);
  }
}

/** The rectangle of a text whose lower left corner is `foot`. */
export function textRect(foot: Spot, text: Area): Rect {
  return { x: foot.x - 2, y: foot.y - text.height - 6, w: text.width + 6, h: text.height + 5 };
}

/**
 * The place of a block's name: at its upper left corner or, if that is outside the window, in the visible part of the
 * block. `block`: its rectangle. Null if too little of it is in the window.
 */
export function nameSpot(corner: Spot, block: Rect, text: Area, { width, height }: Area): Spot | null {
  const [right, foot] = [block.x + block.w, block.y + block.h];
  if (corner.x > width || corner.y > height) return null;
  const within = Math.min(corner.x, width - text.width - EDGE / 2); // all of it can be read
  const spot = { x: Math.max(within, EDGE), y: Math.max(corner.y, EDGE + text.height + 6) };
  if (spot.x > corner.x && spot.x + text.width + EDGE > right) return null;
  return spot.y !== corner.y && spot.y + EDGE > foot ? null : spot;
}

/** The place of a label of this width: left of its row, or where the row enters the window; null if it does not. */
export function lineSpot(from: Spot, to: Spot, width: number): Spot | null {
  const x = from.x - width - 5;
  if (x >= EDGE) return { x, y: from.y };
  if (to.x < EDGE + 3 * width) return null;
  return { x: EDGE, y: from.y + ((EDGE - from.x) / (to.x - from.x)) * (to.y - from.y) };
}

/** The smallest rectangle that contains these points. */
export function boundsOf(points: readonly Spot[]): Rect {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, w: Math.max(...xs) - x, h: Math.max(...ys) - y };
}

/** Whether two rectangles overlap. */
export function overlap(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}
