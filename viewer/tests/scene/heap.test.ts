import { item } from "../../src/checked/item";
import { expect, it } from "vitest";

import { Heap, ROW } from "../../src/scene/heap";
import { Records } from "../../src/scene/records";

const counted = (length: number, first: number): Float32Array => Float32Array.from({ length }, (_, n) => first + n);

it("keeps its values while it grows, and returns null when full", () => {
  const heap = new Heap();
  const starts: number[] = [];
  for (let n = 0; n < 1024; n++) starts.push(heap.put(counted(ROW, n))!);
  expect(new Set(starts).size).toBe(1024);
  expect(starts.map((start) => heap.get(start + 5))).toEqual(starts.map((_, n) => n + 5));
  expect(heap.texture.image.data!.length).toBe(1024 * ROW);
  expect(heap.put(counted(1, 0))).toBeNull();
  heap.drop(item(starts, 7), ROW);
  expect(heap.put(counted(ROW, 7))).toBe(starts[7]);
});

it.each([
  ["values", () => new Heap(), (heap: Heap) => heap.put(counted(3, 1))],
  ["blocks", () => new Records(300), (records: Records) => records.put(7, 0, [1, 2, 3])],
] as const)("sends all %s before it sends parts of them", (_, make, change) => {
  const texels = make();
  change(texels as never);
  expect(texels.texture.updateRanges).toEqual([]);
  texels.texture.onUpdate!(texels.texture); // as three.js does after uploading
  change(texels as never);
  expect(texels.texture.updateRanges).not.toEqual([]);
});
