/** A texture that tells the graphics processor of each block of a model: place, size, cells, and where its values are. */

import { DataTexture, FloatType, RGBAFormat } from "three";

import { BLOCKS_A_ROW, RECORD } from "./shaders";

const FLOATS = 4 * RECORD;
const ROW = FLOATS * BLOCKS_A_ROW;

/** Where in a block's record its parts begin, in floats; the shaders say what they mean. */
export const AT = { place: 0, role: 3, size: 4, emphasis: 7, cells: 8, axes: 10, scale: 11, base: 12, fine: 16, part: 20 };

/** How a block stands out: not at all; not stepping back with the rest; framed, and filled as far as it is computed. */
export const EMPHASIS = { none: 0, lit: 1, spoken: 2 };

export class Records {
  readonly texture: DataTexture;
  #floats: Float32Array<ArrayBuffer>;
  #sent = false; // all of it, once

  constructor(blocks: number) {
    const rows = Math.max(1, Math.ceil(blocks / BLOCKS_A_ROW));
    this.#floats = new Float32Array(ROW * rows);
    this.texture = new DataTexture(this.#floats, ROW / 4, rows, RGBAFormat, FloatType);
    this.texture.needsUpdate = true;
    this.texture.onUpdate = () => (this.#sent = true);
  }

  /** Before the first frame: nothing is sent yet. */
  fill(block: number, at: number, values: ArrayLike<number>): void {
    this.#floats.set(values, block * FLOATS + at);
  }

  put(block: number, at: number, values: ArrayLike<number>): void {
    this.fill(block, at, values);
    if (this.#sent) this.texture.addUpdateRange(block * FLOATS, FLOATS); // else nothing but these parts would be sent
    this.texture.needsUpdate = true;
  }

  get(block: number, at: number): number {
    return this.#floats[block * FLOATS + at];
  }
}
