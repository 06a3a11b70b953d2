/** A reader of safetensors files: 8 bytes for the header's length, a JSON header, then the values. */

import { present } from "../checked/item";

export interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

export interface File {
  metadata: Record<string, string>;
  entries: Map<string, Entry>;
  bytes(name: string): Uint8Array;
}

/** Parses a file. Throws RangeError if it is truncated. */
export function parse(buffer: ArrayBuffer): File {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const start = 8 + length;
  if (start > buffer.byteLength) throw new RangeError("the safetensors header is truncated");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length))) as Record<string, unknown>;
  const { __metadata__: metadata = {}, ...tensors } = header;
  const entries = new Map(Object.entries(tensors) as [string, Entry][]);
  for (const { data_offsets } of entries.values())
    if (start + data_offsets[1] > buffer.byteLength) throw new RangeError("the safetensors values are truncated");
  return {
    metadata: metadata as Record<string, string>,
    entries,
    bytes(name) {
      const [from, to] = present(entries.get(name), `${name} in a safetensors file`).data_offsets;
      return new Uint8Array(buffer, start + from, to - from);
    },
  };
}

type Numbers<T> = new (buffer: ArrayBuffer, offset: number, length: number) => T;

/** The values of a tensor as a typed array, copied only if unaligned. */
export function column<T>(file: File, name: string, kind: Numbers<T> & { BYTES_PER_ELEMENT: number }): T {
  let bytes = file.bytes(name);
  if (bytes.byteOffset % kind.BYTES_PER_ELEMENT) bytes = bytes.slice();
  return new kind(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / kind.BYTES_PER_ELEMENT);
}
