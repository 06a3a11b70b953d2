/** Where a block's cells lie in a tensor: index maps, the slices of NumPy that read them, and the way back. */

/** A row [a, b, c, d] for each axis of the tensor: the value of cell (i, j, k) lies at a·i + b·j + c·k + d. */
export type Index = readonly (readonly number[])[];

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

export function whole(cells: readonly number[]): Rect {
  return { i0: 0, j0: 0, i1: cells[0], j1: cells[1] };
}

/** Where cell (i, j, k) lies in the tensor. */
export function locate(index: Index, [i, j, k]: readonly number[]): number[] {
  return index.map(([a, b, c, d]) => a * i + b * j + c * k + d);
}

/** The cell whose value lies there: the way back of `locate`, where each axis of the tensor follows one of the block's. */
export function cellOf(index: Index, at: readonly number[]): [number, number, number] {
  const cell: [number, number, number] = [0, 0, 0];
  index.forEach(([a, b, c, d], axis) => {
    const follows = [a, b, c].findIndex((step) => step !== 0);
    if (follows >= 0) cell[follows] = (at[axis] - d) / [a, b, c][follows];
  });
  return cell;
}

/** The text of the slice that reads these cells, each `step`th of them. */
export function sliceOf(index: Index, rect: Rect, step = 1): string {
  const range = (from: number, to: number, d: number): string =>
    step === 1 ? `${from + d}:${to + d}` : `${from + d}:${to + d}:${step}`;
  return index
    .map(([a, b, , d]) => (a ? range(rect.i0, rect.i1, d) : b ? range(rect.j0, rect.j1, d) : String(d)))
    .join();
}

/** Which of the block's axes are those that a slice leaves, in the tensor's order. */
export function axesOf(index: Index): ("i" | "j")[] {
  return index.flatMap(([a, b]) => (a ? (["i"] as const) : b ? (["j"] as const) : []));
}

/** The cells of a whole tensor of this shape, row by row: cell (i, j, 0) comes at j · cells[0] + i. */
export function gather(values: Float32Array, shape: readonly number[], index: Index, cells: readonly number[]): Float32Array {
  let [atI, atJ, at] = [0, 0, 0];
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const [a, b, , d] = index[axis];
    atI += a * stride;
    atJ += b * stride;
    at += d * stride;
    stride *= shape[axis];
  }
  const [width, height] = cells;
  const out = new Float32Array(width * height);
  for (let j = 0, n = 0; j < height; j++)
    for (let i = 0, from = at + j * atJ; i < width; i++, n++, from += atI) out[n] = values[from];
  return out;
}

/** Turns columns into rows: values of [width, height] into [height, width]. */
export function transpose(values: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0, n = 0; i < width; i++) for (let j = 0; j < height; j++, n++) out[j * width + i] = values[n];
  return out;
}
