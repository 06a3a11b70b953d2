/** A model's blocks: for each layer one instanced box around an origin of its own, and the cells on it. */

import { Group, GLSL3, InstancedBufferAttribute, InstancedBufferGeometry, Matrix4, Mesh, RawShaderMaterial, BoxGeometry } from "three";
import { DoubleSide, DynamicDrawUsage, FrontSide } from "three";

import { unite, type Box, type Layout, type Span } from "../layout/layout";
import type { Rect } from "../layout/place";
import type { Pose } from "./pose";
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

/** How the boxes are drawn: cell by cell, each in one colour, or only their fronts in one colour. */
export interface Materials {
  cells: RawShaderMaterial;
  plain: RawShaderMaterial;
  sheet: RawShaderMaterial;
}

export function materials(uniforms: Uniforms): Materials {
  const plain = { vertexShader: PLAIN_VERTEX, fragmentShader: PLAIN_FRAGMENT, glslVersion: GLSL3, uniforms };
  return {
    cells: new RawShaderMaterial({ ...plain, vertexShader: CELLS_VERTEX, fragmentShader: CELLS_FRAGMENT, side: FrontSide }),
    plain: new RawShaderMaterial({ ...plain, side: FrontSide }),
    sheet: new RawShaderMaterial({ ...plain, side: DoubleSide }),
  };
}

const NOWHERE = [-1, 1, 1, 1];

/** One layer. */
export class Slab {
  readonly box: Box; // in the layout's coordinates
  readonly mesh: Mesh<InstancedBufferGeometry, RawShaderMaterial>;
  patches = 0; // in how many places it shows cells
  #tone: InstancedBufferAttribute;
  #base: InstancedBufferAttribute;
  #fine: InstancedBufferAttribute;
  #part: InstancedBufferAttribute;

  constructor(
    readonly layout: Layout,
    readonly span: Span,
    materials: Materials,
  ) {
    const count = span.end - span.start;
    this.box = layout.spanBox(span);
    const origin = this.box.min.map((low, axis) => (low + this.box.max[axis]) / 2);
    const geometry = new InstancedBufferGeometry().copy(BOX as unknown as InstancedBufferGeometry);
    const [min, size, cells] = [new Float32Array(3 * count), new Float32Array(3 * count), new Float32Array(2 * count)];
    const tone = new Float32Array(4 * count);
    for (let n = 0, row = span.start; n < count; n++, row++) {
      for (let axis = 0; axis < 3; axis++) {
        min[3 * n + axis] = layout.position[3 * row + axis] - origin[axis];
        size[3 * n + axis] = layout.size[3 * row + axis];
      }
      cells.set([layout.cells[3 * row], layout.cells[3 * row + 1]], 2 * n);
      tone.set([layout.role[row], positionAxes(layout, row), 0, 1], 4 * n);
    }
    const add = (name: string, values: Float32Array, width: number): InstancedBufferAttribute => {
      const attribute = new InstancedBufferAttribute(values, width).setUsage(DynamicDrawUsage) as InstancedBufferAttribute;
      geometry.setAttribute(name, attribute);
      return attribute;
    };
    add("aMin", min, 3);
    add("aSize", size, 3);
    add("aCells", cells, 2);
    this.#tone = add("aTone", tone, 4);
    this.#base = add("aBase", repeat(NOWHERE, count), 4);
    this.#fine = add("aFine", repeat(NOWHERE, count), 4);
    this.#part = add("aPart", new Float32Array(4 * count), 4);
    geometry.instanceCount = count;
    this.mesh = new Mesh(geometry, materials.plain);
    this.mesh.position.fromArray(origin);
    this.mesh.frustumCulled = false; // the stage knows better: it knows the boxes exactly
    this.mesh.matrixAutoUpdate = true;
  }

  /** Shows these values on a block, all over it or on a part. */
  show(row: number, patch: Patch | null, fine: boolean): void {
    const attribute = fine ? this.#fine : this.#base;
    const n = row - this.span.start;
    this.patches += (patch ? 1 : 0) - (attribute.array[4 * n] >= 0 ? 1 : 0);
    put(attribute, n, patch ? [patch.start, patch.width, ...patch.factors] : NOWHERE);
    if (fine && patch) put(this.#part, n, [patch.part.i0, patch.part.j0, patch.part.i1, patch.part.j1]);
  }

  scale(row: number, scale: number): void {
    put(this.#tone, row - this.span.start, [1 / (scale || 1)], 3);
  }

  emphasise(row: number, on: boolean): void {
    put(this.#tone, row - this.span.start, [on ? 1 : 0], 2);
  }

  dispose(): void {
    this.mesh.geometry.dispose();
  }
}

/** All of a model. */
export class Blocks {
  readonly group = new Group();
  readonly slabs: Slab[];
  #emphasised: number[] = [];

  constructor(
    readonly layout: Layout,
    readonly materials: Materials,
  ) {
    this.slabs = layout.spans.map((span) => new Slab(layout, span, materials));
    this.group.add(...this.slabs.map((slab) => slab.mesh));
    this.group.matrixAutoUpdate = false;
  }

  place(pose: Pose): void {
    const [x, y, z] = [pose.turn([1, 0, 0]), pose.turn([0, 1, 0]), pose.turn([0, 0, 1])];
    const [a, b, c] = pose.offset;
    this.group.matrix = new Matrix4(x[0], y[0], z[0], a, x[1], y[1], z[1], b, x[2], y[2], z[2], c, 0, 0, 0, 1);
    this.group.updateMatrixWorld(true);
  }

  slabOf(row: number): Slab {
    return this.slabs.find(({ span }) => row >= span.start && row < span.end)!;
  }

  emphasise(rows: number[]): void {
    for (const row of this.#emphasised) this.slabOf(row).emphasise(row, false);
    for (const row of rows) this.slabOf(row).emphasise(row, true);
    this.#emphasised = rows;
  }

  get bounds(): Box {
    return unite(this.slabs.map((slab) => slab.box));
  }

  dispose(): void {
    for (const slab of this.slabs) slab.dispose();
  }
}

/** A unit box whose front comes first, so that the first six corners are a sheet. */
const BOX = frontFirst(new BoxGeometry(1, 1, 1).translate(0.5, 0.5, 0.5));

function frontFirst(box: BoxGeometry): BoxGeometry {
  const index = [...box.getIndex()!.array];
  box.setIndex([...index.slice(24, 30), ...index.slice(0, 24), ...index.slice(30)]); // +z is the fifth of six sides
  box.clearGroups();
  box.deleteAttribute("uv");
  return box;
}

/** Which axes of a block's cells are positions: 1 for x, 2 for y. Weights have every position from the start. */
function positionAxes(layout: Layout, row: number): number {
  const { role, dims } = layout.kindAt(row);
  return role === "weight" ? 0 : (dims[0] === "T" ? 1 : 0) + (dims[1] === "T" ? 2 : 0);
}

function repeat(values: number[], count: number): Float32Array {
  const all = new Float32Array(values.length * count);
  for (let n = 0; n < count; n++) all.set(values, n * values.length);
  return all;
}

function put(attribute: InstancedBufferAttribute, n: number, values: number[], at = 0): void {
  attribute.array.set(values, n * attribute.itemSize + at);
  attribute.addUpdateRange(n * attribute.itemSize, attribute.itemSize);
  attribute.needsUpdate = true;
}
