/** A float texture with partial updates, four floats per texel. */

import { DataTexture, FloatType, RGBAFormat } from "three";

export class Texels {
  readonly texture: DataTexture;
  floats: Float32Array<ArrayBuffer>;
  #sent = false; // three.js uploads only the given ranges, even for the first upload

  /** `row`: floats per row of the texture. */
  constructor(
    private readonly row: number,
    rows: number,
  ) {
    this.floats = new Float32Array(row * rows);
    this.texture = new DataTexture(this.floats, row / 4, rows, RGBAFormat, FloatType);
    this.texture.onUpdate = () => (this.#sent = true);
    this.texture.needsUpdate = true;
  }

  /** Marks floats, all in one row, as changed. */
  changed(start: number, length: number): void {
    if (this.#sent) this.texture.addUpdateRange(start, length);
    this.texture.needsUpdate = true;
  }

  /** Adds rows. */
  grow(rows: number): void {
    const before = this.floats;
    this.floats = new Float32Array(this.row * rows);
    this.floats.set(before);
    this.texture.dispose(); // the size of an uploaded texture is fixed
    this.texture.image = { data: this.floats, width: this.row / 4, height: rows };
    this.texture.clearUpdateRanges();
    this.texture.needsUpdate = true;
    this.#sent = false;
  }
}
