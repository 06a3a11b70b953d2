/** A texture that tells the graphics processor of each block of a model: place, size, cells, and where its values are. */

import { BLOCKS_A_ROW, RECORD } from "./shaders";
import { Texels } from "./texels";

const FLOATS = 4 * RECORD;
const ROW = FLOATS * BLOCKS_A_ROW;

/** Where in a block's record its parts begin, in floats; the shaders say what they mean. */
export const AT = { place: 0, role: 3, size: 4, emphasis: 7, cells: 8, axes: 10, scale: 11, base: 12, fine: 16, part: 20 };

/** How a block stands out: not at all; not stepping back with the rest; framed, and filled as far as it is computed. */
export const EMPHASIS = { none: 0, lit: 1, spoken: 2 };

export class Records {
  #texels: Texels;

  constructor(blocks: number) {
    this.#texels = new Texels(ROW, Math.max(1, Math.ceil(blocks / BLOCKS_A_ROW)));
  }

  get texture(): Texels["texture"] {
    return this.#texels.texture;
  }

  /** Before the first frame: nothing is sent yet. */
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
