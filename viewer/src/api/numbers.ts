/** Decodes little-endian values of any dtype to float32. */

import { DataUtils } from "three/src/extras/DataUtils.js"; // only this module: the first requests do not wait for all of three.js

export function decode(buffer: ArrayBuffer, dtype: string): Float32Array<ArrayBuffer> {
  switch (dtype) {
    case "float32":
    case "F32":
      return new Float32Array(buffer);
    case "float16":
    case "F16":
      return Float32Array.from(new Uint16Array(buffer), DataUtils.fromHalfFloat);
    case "int32":
    case "I32":
      return Float32Array.from(new Int32Array(buffer));
    case "uint8":
    case "U8":
      return Float32Array.from(new Uint8Array(buffer));
    default:
      throw new TypeError(`dtype must be float32, float16, int32 or uint8, not ${dtype}`);
  }
}
