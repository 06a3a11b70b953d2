/** The meshes of a model's blocks: one mesh per layer, with its own origin. */

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

/** Values of a part of a block in the heap, one per `factors` cells. */
export interface Patch {
  start: number;
  width: number;
  height: number;
  factors: [number, number];
  part: Rect;
}

/** How a layer is drawn: boxes with cells, boxes in one colour, or only their fronts in one colour. */
export type Style = "cells" | "plain" | "sheet";

const NOWHERE = [-1, 1, 1, 1];
const CORNERS: Record<Style, number> = { cells: 18, plain: 18, sheet: 6 }; // vertices of a block

/** Which blocks of a layer are drawn, by the area of their fronts. */
export interface Fineness {
  tiny: number; // smaller blocks are left out
  small: number; // of smaller blocks, only a share is drawn
  share: number;
  sparing: boolean; // whether to draw depth first, to skip hidden cells: not in the first frame, which waits for each program
}

/** One layer. Its blocks are sorted by size, so that the smallest can be left out. */
export class Slab {
  readonly box: Box; // in the layout's coordinates
  readonly mesh: Mesh<BufferGeometry, RawShaderMaterial>;
  readonly depth: Mesh<BufferGeometry, RawShaderMaterial>; // drawn before near cells, so that hidden ones cost nothing
  patches = 0; // the number of its patches with values
  highlighted = false; // whether one of its blocks is highlighted
  #areas: Float64Array; // of the blocks' fronts, by size

  constructor(
    readonly layout: Layout,
    readonly span: Span,
    slots: Int32Array, // output: the record of each row
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
      mesh.frustumCulled = false; // the stage culls by exact boxes
    }
  }

  hide(): void {
    this.mesh.visible = this.depth.visible = false;
  }

  /** Shows the blocks whose fronts are large enough, and a share of the small ones. */
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

/** All blocks of a model. */
export class Blocks {
  static #made = 0;
  readonly number = ++Blocks.#made; // unique
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

  /** Sets the values shown on a block: coarse ones on all of it, or fine ones on a part; null: none. */
  show(row: number, patch: Patch | null, fine: boolean): void {
    const [slot, part] = [item(this.#slots, row), fine ? AT.fine : AT.base];
    this.slabOf(row).patches += (patch ? 1 : 0) - (this.#records.get(slot, part) >= 0 ? 1 : 0);
    this.#records.put(slot, part, patch ? [patch.start, patch.width, ...patch.factors] : NOWHERE);
    if (fine && patch) this.#records.put(slot, AT.part, [patch.part.i0, patch.part.j0, patch.part.i1, patch.part.j1]);
  }

  /** Sets the value of a block that has full brightness. */
  scale(row: number, scale: number): void {
    this.#records.put(item(this.#slots, row), AT.scale, [1 / (scale || 1)]);
  }

  emphasise(rows: number[], lit: number[] = []): void {
    const put = (row: number, emphasis: number): void => {
      this.slabOf(row).highlighted = emphasis === EMPHASIS.highlighted;
      this.#records.put(item(this.#slots, row), AT.emphasis, [emphasis]);
    };
    for (const row of this.#emphasised) put(row, EMPHASIS.none);
    for (const row of lit) put(row, EMPHASIS.lit);
    for (const row of rows) put(row, EMPHASIS.highlighted);
    this.#emphasised = [...lit, ...rows];
  }

  dispose(): void {
    for (const { mesh } of this.slabs) mesh.geometry.dispose();
    for (const material of Object.values(this.#materials)) material.dispose();
    this.#records.texture.dispose();
  }
}

/** Objects whose shaders can be compiled before a model is loaded: three.js caches programs by their source. */
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

/** Which axes of a block's cells are positions, as bits: 1 for x, 2 for y. 0 for weights, which are complete from the start. */
function positionAxes(layout: Layout, row: number): number {
  const { role, dims } = layout.kindAt(row);
  return role === "weight" ? 0 : (isPosition(dims[0]) ? 1 : 0) + (isPosition(dims[1]) ? 2 : 0);
}

/** A head's number with reversed bits: any prefix of heads in this order is spread evenly. */
function reversed(head: number): number {
  let [bits, n] = [0, 0];
  for (let rest = Math.max(head, 0); n < 16; n++, rest >>= 1) bits = (bits << 1) | (rest & 1);
  return bits;
}

/** The number of values that are at least `least`, in an array sorted in descending order. */
function firstBelow(sorted: Float64Array, least: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (item(sorted, middle) < least) high = middle;
    else low = middle + 1;
  }
  return low;
}
