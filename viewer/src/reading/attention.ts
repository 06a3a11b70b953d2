/** Readers of attention patterns at display resolution. */

import { item, present } from "../checked/item";
import type { Service } from "../api/service";
import type { Figure } from "../state/state";
import type { CellAt, Colour } from "../state/view";
import { filled } from "../layout/description";
import type { Layout } from "../layout/layout";
import { cellOf } from "../layout/place";

const THUMBNAIL = 40; // cells of a head's small map, across
const MAP = 1 << 16; // cells of the large one

/** Attention weights from 0 to 1: a row per query position, a column per key position. */
export interface Map2D {
  values: Float32Array;
  width: number;
  height: number;
  factors: [number, number]; // positions per cell, across and down; a cell has their largest weight
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

/** One head, at full resolution if there are few positions. */
export async function readHead(service: Service, { trace, layout }: Figure, layer: number, head: number, signal: AbortSignal): Promise<Map2D> {
  const query = { slice: `0,${head}`, max_cells: String(MAP), reduce: "max" };
  const { values, shape, factors } = await service.values(`/v1/traces/${present(trace, "the trace").id}`, patternName(layout, layer), query, signal);
  return { values, height: item(shape, 0), width: item(shape, 1), factors: factorsOf(factors) };
}

function factorsOf(factors: number[]): [number, number] {
  return [factors.at(-1) ?? 1, factors.at(-2) ?? 1];
}

/** Whether a cell of the map is masked: it comes later and has no attention, as in causal models. */
export function isMasked({ values, width, factors }: Map2D, query: number, key: number): boolean {
  return key * factors[0] > (query + 1) * factors[1] - 1 && values[query * width + key] === 0;
}

/** The cell with the attention of position `query` to position `key`. */
export function cellOfPattern({ layout }: Figure, layer: number, head: number, query: number, key: number): CellAt | null {
  const block = layout.blockOf("pattern", layer, head);
  const row = block === null ? null : layout.row(block);
  const place = row === null ? null : layout.place(row);
  if (block === null || place === null) return null;
  return { figure: 0, block, cell: cellOf(place.index, [0, head, query, key]) };
}

const EVEN = 32; // positions up to which equal weights are visible on a linear scale

/** The colour scale for attention over this many positions: the more positions, the smaller the weights. */
export function shadesFor(colour: Colour, positions: number): Colour {
  return { ...colour, gain: 1, range: null, scale: positions > EVEN ? "log" : colour.scale };
}

/** The distance between labels, in cells, so that each has `room` pixels. */
export function labelStep(pixelsPerCell: number, room: number): number {
  return Math.max(1, Math.ceil(room / pixelsPerCell));
}
