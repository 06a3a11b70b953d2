/** A texture with the values of all loaded blocks. */

import { item } from "../checked/item";
import { Texels } from "./texels";

/** Values per row of the texture; four per texel, as three.js requires for partial updates. */
export const ROW = 4096;

const ROWS = { first: 64, most: 1024 }; // enough for nano-gpt, and 16 MB

/** A first-fit allocator of runs of texels. */
export class Runs {
  #free: { start: number; end: number }[];

  constructor(size: number) {
    this.#free = [{ start: 0, end: size }];
  }

  /** Allocates a run; null if no free run is long enough. */
  take(length: number): number | null {
    const run = this.#free.find(({ start, end }) => end - start >= length);
    if (!run) return null;
    const { start } = run;
    run.start += length;
    if (run.start === run.end) this.#free.splice(this.#free.indexOf(run), 1);
    return start;
  }

  give(start: number, length: number): void {
    const run = { start, end: start + length };
    let n = this.#free.findIndex((other) => other.start >= run.end);
    if (n < 0) n = this.#free.length;
    const [before, after] = [this.#free[n - 1], this.#free[n]];
    if (before?.end === run.start) run.start = before.start;
    if (after?.start === run.end) run.end = after.end;
    const [joinsBefore, joinsAfter] = [before !== undefined && run.start === before.start, after !== undefined && run.end === after.end];
    this.#free.splice(n - Number(joinsBefore), Number(joinsBefore) + Number(joinsAfter), run);
  }
}

export class Heap {
  #texels = new Texels(ROW, ROWS.first);
  #runs = new Runs(ROW * ROWS.first);
  #rows = ROWS.first;

  get texture(): Texels["texture"] {
    return this.#texels.texture;
  }

  /** Stores values; returns their start, or null if the heap is full. */
  put(values: Float32Array): number | null {
    let start = this.#runs.take(values.length);
    while (start === null && this.#grow()) start = this.#runs.take(values.length);
    if (start === null) return null;
    this.#texels.floats.set(values, start);
    for (let at = start - (start % ROW); at < start + values.length; at += ROW) this.#texels.changed(at, ROW);
    return start;
  }

  drop(start: number, length: number): void {
    this.#runs.give(start, length);
  }

  get(n: number): number {
    return item(this.#texels.floats, n);
  }

  /** Doubles the size, up to the limit. */
  #grow(): boolean {
    if (this.#rows >= ROWS.most) return false;
    this.#runs.give(ROW * this.#rows, ROW * this.#rows);
    this.#rows *= 2;
    this.#texels.grow(this.#rows);
    return true;
  }
}
