/** A texture with a record for each block of a model, read by the shaders. */

import { BLOCKS_A_ROW, RECORD } from "./shaders";
import { Texels } from "./texels";

const FLOATS = 4 * RECORD;
const ROW = FLOATS * BLOCKS_A_ROW;

/** Offsets of the fields of a record, in floats; see the shaders for their meaning. */
export const AT = { place: 0, role: 3, size: 4, emphasis: 7, cells: 8, axes: 10, scale: 11, base: 12, fine: 16, part: 20 };

/** The emphasis of a block: none; not dimmed; or drawn with a frame and filled up to `reveal`. */
export const EMPHASIS = { none: 0, lit: 1, highlighted: 2 };

export class Records {
  #texels: Texels;

  constructor(blocks: number) {
    this.#texels = new Texels(ROW, Math.max(1, Math.ceil(blocks / BLOCKS_A_ROW)));
  }

  get texture(): Texels["texture"] {
    return this.#texels.texture;
  }

  /** Writes fields before the first frame, when nothing is uploaded yet. */
  fill(block: number, at: number, values: ArrayLike<number>): void {
    this.#texels.floats.set(values, block * FLOATS + at);
  }

  put(block: number, at: number, values: ArrayLike<number>): void {
    this.fill(block, at, values);
    this.#texels.changed(block * FLOATS, FLOATS);
  }

  get(block: number, at: number): number {
    return this.#texels.floats[block * FLOATS + at] ?? NaN;
  }
}
