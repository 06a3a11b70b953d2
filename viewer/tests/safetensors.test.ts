import { describe, expect, it } from "vitest";

import { decode } from "../src/api/numbers";
import { column, parse } from "../src/api/safetensors";

function file(header: object, values: Uint8Array): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + values.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(values, 8 + text.length);
  return bytes.buffer;
}

const VALUES = new Uint8Array(new Float64Array([1.5, -2]).buffer);
const HEADER = { __metadata__: { a: "b" }, x: { dtype: "F64", shape: [2], data_offsets: [0, 16] } };

describe("a safetensors file", () => {
  it("has metadata, entries and their values", () => {
    const parsed = parse(file(HEADER, VALUES));
    expect(parsed.metadata).toEqual({ a: "b" });
    expect([...parsed.entries.keys()]).toEqual(["x"]);
    expect([...column(parsed, "x", Float64Array)]).toEqual([1.5, -2]);
  });

  it.each([1, 2, 3, 4, 5, 6, 7])("can be read however its values lie: %i bytes on", (more) => {
    const padded = { ...HEADER, __metadata__: { a: "b".repeat(more) } };
    expect([...column(parse(file(padded, VALUES)), "x", Float64Array)]).toEqual([1.5, -2]);
  });

  it("is refused if truncated", () => {
    expect(() => parse(file(HEADER, VALUES.slice(0, 15)))).toThrow(RangeError);
    expect(() => parse(file(HEADER, VALUES).slice(0, 20))).toThrow(RangeError);
  });
});

describe("bytes of every type become float32", () => {
  it("float16, masked cells too", () => expect([...decode(Uint16Array.of(0x3c00, 0xc000, 0xfc00).buffer, "float16")]).toEqual([1, -2, -Infinity]));
  it("int32", () => expect([...decode(Int32Array.of(7, -1).buffer, "int32")]).toEqual([7, -1]));
  it("other dtypes throw", () => expect(() => decode(new ArrayBuffer(8), "complex64")).toThrow("complex64"));
});
