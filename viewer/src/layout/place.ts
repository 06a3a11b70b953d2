/** Index maps from a block's cells to a tensor, their inverse, and NumPy slices. */

import { item } from "../checked/item";

/** [a, b, c, d] for an axis of the tensor: the value of cell (i, j, k) is at a·i + b·j + c·k + d. */
export type IndexRow = readonly [number, number, number, number];
export type Index = readonly IndexRow[];
export type Cell = readonly [number, number, number];

export interface Place {
  name: string;
  index: Index;
}

/** Cells i0 ≤ i < i1, j0 ≤ j < j1 of the first layer of a block. */
export interface Rect {
  i0: number;
  j0: number;
  i1: number;
  j1: number;
}

export function whole([width, height]: readonly [number, number, ...number[]]): Rect {
  return { i0: 0, j0: 0, i1: width, j1: height };
}

/** Where cell (i, j, k) is in the tensor. */
export function locate(index: Index, [i, j, k]: Cell): number[] {
  return index.map(([a, b, c, d]) => a * i + b * j + c * k + d);
}

/** The inverse of `locate`, for maps in which each axis of the tensor depends on one of the block's. */
export function cellOf(index: Index, place: readonly number[]): [number, number, number] {
  const cell: [number, number, number] = [0, 0, 0];
  index.forEach(([a, b, c, d], axis) => {
    const from = item(place, axis) - d;
    if (a !== 0) cell[0] = from / a;
    else if (b !== 0) cell[1] = from / b;
    else if (c !== 0) cell[2] = from / c;
  });
  return cell;
}

/** The slice that reads every `step`th of these cells, as text. */
export function sliceOf(index: Index, rect: Rect, step = 1): string {
  const range = (from: number, to: number, d: number): string =>
    step === 1 ? `${from + d}:${to + d}` : `${from + d}:${to + d}:${step}`;
  return index
    .map(([a, b, , d]) => (a ? range(rect.i0, rect.i1, d) : b ? range(rect.j0, rect.j1, d) : String(d)))
    .join();
}

/** The block's axes that remain in a slice, in the tensor's order. */
export function axesOf(index: Index): ("i" | "j")[] {
  return index.flatMap(([a, b]) => (a ? (["i"] as const) : b ? (["j"] as const) : []));
}

/** The cells of a whole tensor of this shape, row by row: cell (i, j, 0) comes at j · width + i. */
export function gather(
  values: Float32Array,
  shape: readonly number[],
  index: Index,
  [width, height]: readonly [number, number, ...number[]],
): Float32Array {
  let [atI, atJ, offset] = [0, 0, 0];
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const [a, b, , d] = item(index, axis);
    atI += a * stride;
    atJ += b * stride;
    offset += d * stride;
    stride *= item(shape, axis);
  }
  const out = new Float32Array(width * height);
  for (let j = 0, n = 0; j < height; j++)
    for (let i = 0, from = offset + j * atJ; i < width; i++, n++, from += atI) out[n] = values[from] ?? NaN;
  return out;
}

/** Transposes values: [width, height] -> [height, width]. */
export function transpose(values: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0, n = 0; i < width; i++) for (let j = 0; j < height; j++, n++) out[j * width + i] = values[n] ?? NaN;
  return out;
}
