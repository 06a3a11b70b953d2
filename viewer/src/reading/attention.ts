/** Reads attention patterns at the resolution that is shown. */

import { item, present } from "../checked/item";
import type { Service } from "../api/service";
import type { Figure } from "../state/state";
import type { CellAt, Colour } from "../state/view";
import { filled } from "../layout/description";
import type { Layout } from "../layout/layout";
import { cellOf } from "../layout/place";

const THUMBNAIL = 40; // cells of a head's small map, across
const MAP = 1 << 16; // cells of the large one

/** Shares from 0 to 1, row by row: rows are positions that attend, columns those attended to. */
export interface Map2D {
  values: Float32Array;
  width: number;
  height: number;
  factors: [number, number]; // positions per cell, across and down; a cell has their largest share
}

/** The tensor with the attention of all heads of a layer. */
function patternName({ description }: Layout, layer: number): string {
  const { tensor } = present(description.part("pattern"), "attention");
  return filled(present(tensor, "the tensor of the attention"), layer);
}

/** All heads of a layer, small. */
export async function readHeads(service: Service, { trace, layout }: Figure, layer: number, signal: AbortSignal): Promise<Map2D[]> {
  const { heads } = layout.description;
  const query = { slice: "0", dtype: "float16", max_cells: String(heads * THUMBNAIL ** 2), reduce: "max" };
  const { values, shape, factors } = await service.values(`/v1/traces/${present(trace, "the trace").id}`, patternName(layout, layer), query, signal);
  const [height, width] = [item(shape, 1), item(shape, 2)];
  const of = (head: number): Float32Array => values.subarray(head * width * height, (head + 1) * width * height);
  return Array.from({ length: heads }, (_, head) => ({ values: of(head), width, height, factors: factorsOf(factors) }));
}

/** One head, position by position where there are few enough. */
export async function readHead(service: Service, { trace, layout }: Figure, layer: number, head: number, signal: AbortSignal): Promise<Map2D> {
  const query = { slice: `0,${head}`, max_cells: String(MAP), reduce: "max" };
  const { values, shape, factors } = await service.values(`/v1/traces/${present(trace, "the trace").id}`, patternName(layout, layer), query, signal);
  return { values, height: item(shape, 0), width: item(shape, 1), factors: factorsOf(factors) };
}

function factorsOf(factors: number[]): [number, number] {
  return [factors.at(-1) ?? 1, factors.at(-2) ?? 1];
}

/** The cell with the attention of position `query` to position `key`. */
export function cellOfPattern({ layout }: Figure, layer: number, head: number, query: number, key: number): CellAt | null {
  const block = layout.blockOf("pattern", layer, head);
  const row = block === null ? null : layout.row(block);
  const place = row === null ? null : layout.place(row);
  if (block === null || place === null) return null;
  return { figure: 0, block, cell: cellOf(place.index, [0, head, query, key]) };
}

const EVEN = 32; // positions among which a share is large enough to be seen

/** The colour scale for shares of so many positions: with many, each is small. */
export function shadesFor(colour: Colour, positions: number): Colour {
  return { ...colour, gain: 1, range: null, scale: positions > EVEN ? "log" : colour.scale };
}

/** The distance between labels, in cells of this size, so that each has `room` pixels. */
export function labelStep(pixelsPerCell: number, room: number): number {
  return Math.max(1, Math.ceil(room / pixelsPerCell));
}
