/** Where every block of a model stands: the columns of a layout's safetensors file, and what ids and rows mean. */

import { column, type File } from "../api/safetensors";
import type { Config, LayoutFacts } from "../api/service";
import type { Index, Place } from "./place";

export const ROLES = ["weight", "activation", "statistic"] as const;
export type Role = (typeof ROLES)[number];

/** A kind of block: what its blocks in all layers and heads have in common. */
export interface Kind {
  id: string; // with {layer} and {head}
  name: string;
  role: Role;
  scope: "model" | "layer" | "head";
  dims: string[];
  minor: boolean;
  tensor: string | null; // with {layer}
}

/** Rows that are drawn together: a layer, or what is before the first or after the last. */
export interface Span {
  layer: number; // -1: of none
  start: number;
  end: number;
}

/** Opposite corners, in the layout's coordinates: x right, y down, z toward the viewer. */
export interface Box {
  min: [number, number, number];
  max: [number, number, number];
}

const NUMBERED = /^blocks\.(\d+)\.(?:attn\.heads\.(\d+)\.)?/;

export class Layout {
  readonly count: number;
  readonly spans: Span[];
  #rows: number[][]; // by kind, then layer · heads + head
  #kindOf: Map<string, number>;

  constructor(
    readonly facts: LayoutFacts,
    readonly kinds: Kind[],
    readonly position: Float64Array,
    readonly size: Float64Array,
    readonly cells: Int32Array,
    readonly layer: Int32Array,
    readonly head: Int32Array,
    readonly role: Uint8Array,
    readonly kind: Uint8Array,
    private readonly indices: Map<string, Index[]>, // by the kind's id, then head: the first two of them
  ) {
    this.count = layer.length;
    this.spans = spansOf(layer);
    this.#kindOf = new Map(kinds.map(({ id }, n) => [id, n]));
    this.#rows = kinds.map(() => []);
    for (let row = 0; row < this.count; row++) this.#rows[kind[row]].push(row);
  }

  static read(facts: LayoutFacts, file: File, described: LayoutFacts[]): Layout {
    const kinds = JSON.parse(file.metadata["kinds"]) as Kind[];
    const position = column(file, "position", Float64Array);
    const size = column(file, "size", Float64Array);
    const cells = column(file, "cells", Int32Array);
    const [layer, head] = [column(file, "layer", Int32Array), column(file, "head", Int32Array)];
    const [role, kind] = [column(file, "role", Uint8Array), column(file, "kind", Uint8Array)];
    return new Layout(facts, kinds, position, size, cells, layer, head, role, kind, indicesOf(described));
  }

  get config(): Config {
    return this.facts.config;
  }

  get bounds(): Box {
    return this.facts.bounds as Box;
  }

  id(row: number): string {
    const { id } = this.kinds[this.kind[row]];
    return id.replace("{layer}", String(this.layer[row])).replace("{head}", String(this.head[row]));
  }

  /** The row of a block, or null where there is none of this id. */
  row(id: string): number | null {
    const [, layer, head] = NUMBERED.exec(id) ?? [];
    const kind = this.#kindOf.get(patternOf(id));
    if (kind === undefined) return null;
    const heads = this.kinds[kind].scope === "head" ? this.config.n_head : 1;
    if (Number(head ?? 0) >= heads) return null;
    return this.#rows[kind][Number(layer ?? 0) * heads + Number(head ?? 0)] ?? null;
  }

  kindAt(row: number): Kind {
    return this.kinds[this.kind[row]];
  }

  box(row: number): Box {
    const [x, y, z] = this.position.subarray(3 * row, 3 * row + 3);
    const [dx, dy, dz] = this.size.subarray(3 * row, 3 * row + 3);
    return { min: [x, y, z], max: [x + dx, y + dy, z + dz] };
  }

  cellsOf(row: number): [number, number, number] {
    return [this.cells[3 * row], this.cells[3 * row + 1], this.cells[3 * row + 2]];
  }

  /** Which tensor fills a block, and where in it; null for a box that stands for several. */
  place(row: number): Place | null {
    const kind = this.kindAt(row);
    const [first, second] = this.indices.get(kind.id) ?? [];
    if (!kind.tensor || !first) return null;
    const head = Math.max(this.head[row], 0);
    const index = second ? first.map((at, axis) => [...at.slice(0, 3), at[3] + head * (second[axis][3] - at[3])]) : first;
    return { name: kind.tensor.replace("{layer}", String(this.layer[row])), index };
  }

  /** The corners of these blocks together; all that are known count. */
  around(ids: readonly string[]): Box | null {
    const rows = ids.map((id) => this.row(id)).filter((row) => row !== null);
    return rows.length ? unite(rows.map((row) => this.box(row))) : null;
  }

  spanBox({ start, end }: Span): Box {
    const box: Box = { min: [Infinity, Infinity, Infinity], max: [-Infinity, -Infinity, -Infinity] };
    for (let n = 3 * start; n < 3 * end; n++) {
      const axis = n % 3;
      box.min[axis] = Math.min(box.min[axis], this.position[n]);
      box.max[axis] = Math.max(box.max[axis], this.position[n] + this.size[n]);
    }
    return box;
  }
}

export function unite(boxes: readonly Box[]): Box {
  const corner = (pick: (...of: number[]) => number, of: (box: Box) => number[]) =>
    [0, 1, 2].map((axis) => pick(...boxes.map((box) => of(box)[axis]))) as Box["min"];
  return { min: corner(Math.min, (box) => box.min), max: corner(Math.max, (box) => box.max) };
}

/** The kind of a block of this id: its id with {layer} and {head} for the numbers. */
export function patternOf(id: string): string {
  return id.replace(NUMBERED, (_, __, head) => (head === undefined ? "blocks.{layer}." : "blocks.{layer}.attn.heads.{head}."));
}

function spansOf(layer: Int32Array): Span[] {
  const spans: Span[] = [];
  for (let row = 0; row < layer.length; row++) {
    const last = spans.at(-1);
    if (last && last.layer === layer[row]) last.end = row + 1;
    else spans.push({ layer: layer[row], start: row, end: row + 1 });
  }
  return spans;
}

/** Index maps are the same in all layers, and from head to head move by the same step: two heads of one layer tell all. */
function indicesOf(described: LayoutFacts[]): Map<string, Index[]> {
  const indices = new Map<string, Index[]>();
  for (const { blocks } of described)
    for (const { id, tensor } of blocks ?? []) {
      const of = indices.get(patternOf(id!)) ?? [];
      const head = Number(NUMBERED.exec(id!)?.[2] ?? 0);
      if (tensor) of[head] = tensor.index;
      indices.set(patternOf(id!), of);
    }
  return indices;
}
