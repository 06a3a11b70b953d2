/** A layout: the position, size and tensor of every block. */

import type { LayoutFacts } from "../api/service";
import { column, type File } from "../api/safetensors";
import { item, present } from "../checked/item";
import { AXES, unite, type Box } from "./box";
import { Description, filled, isPosition, numbersIn, shapeOf, type Architecture, type Kind, type Part } from "./description";
import type { Index, IndexRow, Place } from "./place";

/** Rows that are drawn together: a layer, or the blocks before or after the layers. */
export interface Span {
  layer: number; // -1: none
  start: number;
  end: number;
}

/** The columns of the file, with a row per block; positions, sizes and cells have three numbers per row. */
export interface Columns {
  position: Float64Array;
  size: Float64Array;
  cells: Int32Array;
  layer: Int32Array; // -1: none
  head: Int32Array; // the member of its kind's group; -1: none
  role: Uint8Array; // an index into ROLES
  kind: Uint8Array; // an index into the description's kinds
}

export type Cells = [number, number, number];

export class Layout {
  readonly count: number;
  readonly spans: Span[];
  readonly position: Float64Array;
  readonly size: Float64Array;
  readonly cells: Int32Array;
  readonly layer: Int32Array;
  readonly head: Int32Array;
  readonly role: Uint8Array;
  #kind: Uint8Array;
  #rows: number[][]; // by kind, then layer · members + member
  #kindOf: Map<string, number>; // by the kind's id without its numbers

  constructor(
    readonly facts: LayoutFacts,
    readonly description: Description,
    { position, size, cells, layer, head, role, kind }: Columns,
    private readonly indices: Map<string, Index[]>, // by the kind's id: of the first two members of its group
  ) {
    this.position = position;
    this.size = size;
    this.cells = cells;
    this.layer = layer;
    this.head = head;
    this.role = role;
    this.#kind = kind;
    this.count = layer.length;
    const { kinds } = description;
    this.#kindOf = new Map(kinds.map(({ id }, n) => [shapeOf(id), n]));
    this.#rows = kinds.map(() => []);
    for (let row = 0; row < this.count; row++) item(this.#rows, item(kind, row)).push(row);
    this.spans = spansOf(layer, (row) => this.kindAt(row).stack);
  }

  static read(facts: LayoutFacts, description: Description, file: File, samples: LayoutFacts[]): Layout {
    const columns: Columns = {
      position: column(file, "position", Float64Array),
      size: column(file, "size", Float64Array),
      cells: column(file, "cells", Int32Array),
      layer: column(file, "layer", Int32Array),
      head: column(file, "head", Int32Array),
      role: column(file, "role", Uint8Array),
      kind: column(file, "kind", Uint8Array),
    };
    return new Layout(facts, description, columns, indicesOf(samples));
  }

  get bounds(): Box {
    return this.facts.bounds as Box;
  }

  /** The side of a cell, in the layout's coordinates. */
  get cell(): number {
    return this.facts.cell ?? 1.5;
  }

  id(row: number): string {
    return filled(this.kindAt(row).id, item(this.layer, row), item(this.head, row));
  }

  /** The row of a block, or null if no block has this id. */
  row(id: string): number | null {
    const kind = this.#kindOf.get(shapeOf(id));
    if (kind === undefined) return null;
    const { group } = item(this.description.kinds, kind);
    const members = this.description.members(group);
    const numbers = numbersIn(id);
    const member = group === null ? 0 : (numbers.at(-1) ?? 0);
    const layer = numbers.length > (group === null ? 0 : 1) ? (numbers[0] ?? 0) : 0;
    return member < members ? (this.#rows[kind]?.[layer * members + member] ?? null) : null;
  }

  kindAt(row: number): Kind {
    return item(this.description.kinds, item(this.#kind, row));
  }

  /** The id of the block with this part, in a layer and of a member of its group; null if no kind has it. */
  blockOf(part: Part, layer = 0, member = 0): string | null {
    const kind = this.description.part(part);
    return kind && filled(kind.id, layer, member);
  }

  /** The number of values a part has per position: d_model for the residual stream, the vocabulary for logits. */
  widthOf(part: Part): number {
    const kind = this.description.kinds.findIndex((one) => one.part === part);
    const row = this.#rows[kind]?.[0];
    if (row === undefined) return 0;
    return this.cellsOf(row)[isPosition(this.kindAt(row).dims[0]) ? 1 : 0];
  }

  box(row: number): Box {
    const [x, y, z] = [item(this.position, 3 * row), item(this.position, 3 * row + 1), item(this.position, 3 * row + 2)];
    return { min: [x, y, z], max: [x + item(this.size, 3 * row), y + item(this.size, 3 * row + 1), z + item(this.size, 3 * row + 2)] };
  }

  cellsOf(row: number): Cells {
    return [item(this.cells, 3 * row), item(this.cells, 3 * row + 1), item(this.cells, 3 * row + 2)];
  }

  /** The slice of a tensor that fills a block; null for a block without a tensor. */
  place(row: number): Place | null {
    const kind = this.kindAt(row);
    const [first, second] = this.indices.get(shapeOf(kind.id)) ?? [];
    if (!kind.tensor || !first) return null;
    const head = Math.max(item(this.head, row), 0);
    const index = second ? first.map((axis, n) => ofHead(axis, item(second, n), head)) : first;
    return { name: filled(kind.tensor, item(this.layer, row)), index };
  }

  /** The smallest box around these blocks; unknown ids are ignored. */
  around(ids: readonly string[]): Box | null {
    const rows = ids.map((id) => this.row(id)).filter((row) => row !== null);
    return rows.length ? unite(rows.map((row) => this.box(row))) : null;
  }

  spanBox({ start, end }: Span): Box {
    const box: Box = { min: [Infinity, Infinity, Infinity], max: [-Infinity, -Infinity, -Infinity] };
    for (let row = start; row < end; row++) // without a box for each block: there may be thousands
      for (const axis of AXES) {
        const low = item(this.position, 3 * row + axis);
        box.min[axis] = Math.min(box.min[axis], low);
        box.max[axis] = Math.max(box.max[axis], low + item(this.size, 3 * row + axis));
      }
    return box;
  }
}

/** The architecture, from the metadata of a layout's file. */
export function describedIn({ metadata }: Pick<File, "metadata">): Description {
  return new Description(JSON.parse(present(metadata["architecture"], "architecture in the layout's metadata")) as Architecture);
}

function spansOf(layers: Int32Array, stackOf: (row: number) => string | null): Span[] {
  const spans: (Span & { stack: string | null })[] = [];
  layers.forEach((layer, row) => {
    const last = spans.at(-1);
    const stack = stackOf(row);
    if (last?.layer === layer && last.stack === stack) last.end = row + 1;
    else spans.push({ layer, stack, start: row, end: row + 1 });
  });
  return spans;
}

/** An axis of the index map of a later head: offsets grow linearly from head to head. */
function ofHead([a, b, c, d]: IndexRow, second: IndexRow, head: number): IndexRow {
  return [a, b, c, d + head * (second[3] - d)];
}

function axisOf(row: readonly number[]): IndexRow {
  return [item(row, 0), item(row, 1), item(row, 2), item(row, 3)];
}

/** Index maps of the first two members of each group, which determine all others; they are the same in all layers. */
function indicesOf(samples: LayoutFacts[]): Map<string, Index[]> {
  const indices = new Map<string, Index[]>();
  for (const { blocks } of samples)
    for (const { id, tensor } of blocks ?? []) {
      if (!id || !tensor) continue;
      const known = indices.get(shapeOf(id)) ?? [];
      const numbers = numbersIn(id);
      known[numbers.length > 1 ? item(numbers, 1) : 0] = tensor.index.map(axisOf);
      indices.set(shapeOf(id), known);
    }
  return indices;
}
