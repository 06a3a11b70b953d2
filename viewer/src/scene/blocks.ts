/** A model's blocks: each layer is drawn at once, around an origin of its own, with the cells on its blocks. */

import { item } from "../checked/item";
import { BufferGeometry, DoubleSide, Group, GLSL3, Matrix4, Mesh, RawShaderMaterial } from "three";

import { AXES, pointOf, type Box } from "../layout/box";
import { isPosition } from "../layout/description";
import type { Layout, Span } from "../layout/layout";
import type { Rect } from "../layout/place";
import type { Pose } from "../layout/pose";
import { AT, EMPHASIS, Records } from "./records";
import { CELLS_FRAGMENT, CELLS_VERTEX, PLAIN_FRAGMENT, PLAIN_VERTEX } from "./shaders";

export type Uniforms = Record<string, { value: unknown }>;

/** Values of a part of a block in the heap; each stands for `factors` cells. */
export interface Patch {
  start: number;
  width: number;
  height: number;
  factors: [number, number];
  part: Rect;
}

/** How a layer is drawn: boxes with cells, boxes in one colour, or only the sides across z in one colour. */
export type Style = "cells" | "plain" | "sheet";

const NOWHERE = [-1, 1, 1, 1];
const CORNERS: Record<Style, number> = { cells: 18, plain: 18, sheet: 6 }; // that a block takes

/** Areas of fronts, below which blocks are left out, and below which only a share of them is drawn. */
export interface Fineness {
  tiny: number;
  small: number;
  share: number;
  sparing: boolean; // whether to find out first which cells are hidden: not in the first frame, which has to wait for each program
}

/** One layer. Its blocks come by size, so that those too small to be seen are the last. */
export class Slab {
  readonly box: Box; // in the layout's coordinates
  readonly mesh: Mesh<BufferGeometry, RawShaderMaterial>;
  readonly depth: Mesh<BufferGeometry, RawShaderMaterial>; // drawn before near cells, so that hidden ones cost nothing
  patches = 0; // in how many places it shows cells
  spoken = false; // whether one of its blocks is spoken of
  #areas: Float64Array; // of the blocks' fronts, by size

  constructor(
    readonly layout: Layout,
    readonly span: Span,
    slots: Int32Array, // where the record of each row is: filled here
    records: Records,
    material: RawShaderMaterial,
    depth: RawShaderMaterial,
  ) {
    this.box = layout.spanBox(span);
    const origin = pointOf((axis) => (this.box.min[axis] + this.box.max[axis]) / 2);
    const area = (row: number): number => item(layout.size, 3 * row) * item(layout.size, 3 * row + 1);
    const order = (row: number): number => reversed(item(layout.head, row));
    const rows = Array.from({ length: span.end - span.start }, (_, n) => span.start + n);
    rows.sort((a, b) => area(b) - area(a) || order(a) - order(b));
    this.#areas = Float64Array.from(rows, area);
    rows.forEach((row, n) => {
      const slot = span.start + n;
      const [width, height] = layout.cellsOf(row);
      slots[row] = slot;
      records.fill(slot, AT.place, AXES.map((axis) => item(layout.position, 3 * row + axis) - origin[axis]));
      records.fill(slot, AT.size, layout.size.subarray(3 * row, 3 * row + 3));
      records.fill(slot, AT.role, [item(layout.role, row)]);
      records.fill(slot, AT.cells, [width, height, positionAxes(layout, row), 1]);
      records.fill(slot, AT.base, [...NOWHERE, ...NOWHERE]);
    });
    this.mesh = new Mesh(new BufferGeometry(), material);
    this.depth = new Mesh(this.mesh.geometry, depth);
    this.depth.renderOrder = -1;
    for (const mesh of [this.mesh, this.depth]) {
      mesh.position.fromArray(origin);
      mesh.frustumCulled = false; // the stage knows better: it knows the boxes exactly
    }
  }

  hide(): void {
    this.mesh.visible = this.depth.visible = false;
  }

  /** Draws those blocks whose fronts are not too small to be seen, and of the small ones only a share. */
  dress(style: Style, material: RawShaderMaterial, { tiny, small, share, sparing }: Fineness): void {
    this.mesh.visible = true;
    this.mesh.material = material;
    this.depth.visible = style === "cells" && sparing;
    let count = this.#areas.length;
    if (style !== "cells") {
      const large = firstBelow(this.#areas, small);
      count = large + Math.ceil((firstBelow(this.#areas, tiny) - large) * share);
    }
    this.mesh.geometry.setDrawRange(CORNERS[style] * this.span.start, CORNERS[style] * count);
  }
}

/** All of a model. */
export class Blocks {
  static #made = 0;
  readonly number = ++Blocks.#made; // tells it from all others
  readonly group = new Group();
  readonly slabs: Slab[];
  readonly #materials: Record<Style | "depth", RawShaderMaterial>;
  #records: Records;
  #slots: Int32Array;
  #emphasised: number[] = [];

  constructor(
    readonly layout: Layout,
    uniforms: Uniforms,
  ) {
    this.#records = new Records(layout.count);
    this.#slots = new Int32Array(layout.count);
    this.#materials = materials({ ...uniforms, uBlocks: { value: this.#records.texture } });
    const { sheet, depth } = this.#materials;
    this.slabs = layout.spans.map((span) => new Slab(layout, span, this.#slots, this.#records, sheet, depth));
    this.group.add(...this.slabs.flatMap((slab) => [slab.mesh, slab.depth]));
    this.group.matrixAutoUpdate = false;
  }

  place(pose: Pose): void {
    const [x, y, z] = [pose.turn([1, 0, 0]), pose.turn([0, 1, 0]), pose.turn([0, 0, 1])];
    const [a, b, c] = pose.offset;
    this.group.matrix = new Matrix4(x[0], y[0], z[0], a, x[1], y[1], z[1], b, x[2], y[2], z[2], c, 0, 0, 0, 1);
    this.group.updateMatrixWorld(true);
  }

  slabOf(row: number): Slab {
    let [low, high] = [0, this.slabs.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (row < item(this.slabs, middle).span.end) high = middle;
      else low = middle + 1;
    }
    return item(this.slabs, low);
  }

  dress(slab: Slab, style: Style, fineness: Fineness): void {
    slab.dress(style, this.#materials[style], fineness);
  }

  /** Shows these values on a block, all over it or on a part; null: none. */
  show(row: number, patch: Patch | null, fine: boolean): void {
    const [slot, part] = [item(this.#slots, row), fine ? AT.fine : AT.base];
    this.slabOf(row).patches += (patch ? 1 : 0) - (this.#records.get(slot, part) >= 0 ? 1 : 0);
    this.#records.put(slot, part, patch ? [patch.start, patch.width, ...patch.factors] : NOWHERE);
    if (fine && patch) this.#records.put(slot, AT.part, [patch.part.i0, patch.part.j0, patch.part.i1, patch.part.j1]);
  }

  /** What of a block's values stands for full brightness. */
  scale(row: number, scale: number): void {
    this.#records.put(item(this.#slots, row), AT.scale, [1 / (scale || 1)]);
  }

  emphasise(rows: number[], lit: number[] = []): void {
    const put = (row: number, emphasis: number): void => {
      this.slabOf(row).spoken = emphasis === EMPHASIS.spoken;
      this.#records.put(item(this.#slots, row), AT.emphasis, [emphasis]);
    };
    for (const row of this.#emphasised) put(row, EMPHASIS.none);
    for (const row of lit) put(row, EMPHASIS.lit);
    for (const row of rows) put(row, EMPHASIS.spoken);
    this.#emphasised = [...lit, ...rows];
  }

  dispose(): void {
    for (const { mesh } of this.slabs) mesh.geometry.dispose();
    for (const material of Object.values(this.#materials)) material.dispose();
    this.#records.texture.dispose();
  }
}

/** What a small model is drawn with, so that its program is ready when it comes: it is kept by its text. */
export function warmUp(uniforms: Uniforms): Group {
  const { cells } = materials({ ...uniforms, uBlocks: { value: null } });
  return new Group().add(new Mesh(new BufferGeometry(), cells));
}

function materials(uniforms: Uniforms): Record<Style | "depth", RawShaderMaterial> {
  const make = (vertexShader: string, fragmentShader: string, FACES: number, colorWrite = true): RawShaderMaterial =>
    new RawShaderMaterial({ vertexShader, fragmentShader, defines: { FACES }, glslVersion: GLSL3, uniforms, side: DoubleSide, colorWrite });
  return {
    cells: make(CELLS_VERTEX, CELLS_FRAGMENT, 3),
    plain: make(PLAIN_VERTEX, PLAIN_FRAGMENT, 3),
    sheet: make(PLAIN_VERTEX, PLAIN_FRAGMENT, 1),
    depth: make(PLAIN_VERTEX, PLAIN_FRAGMENT, 3, false),
  };
}

/** Which axes of a block's cells are positions: 1 for x, 2 for y. Weights have every position from the start. */
function positionAxes(layout: Layout, row: number): number {
  const { role, dims } = layout.kindAt(row);
  return role === "weight" ? 0 : (isPosition(dims[0]) ? 1 : 0) + (isPosition(dims[1]) ? 2 : 0);
}

/** The bits of a head's number from the other end: any share of heads in this order is spread evenly over all. */
function reversed(head: number): number {
  let [bits, n] = [0, 0];
  for (let rest = Math.max(head, 0); n < 16; n++, rest >>= 1) bits = (bits << 1) | (rest & 1);
  return bits;
}

/** How many of these numbers, the largest first, are not below that. */
function firstBelow(sorted: Float64Array, least: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (item(sorted, middle) < least) high = middle;
    else low = middle + 1;
  }
  return low;
}
