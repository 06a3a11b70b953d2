import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { Thrift } from "../../src/scene/thrift";

let drawing = false;
const gl = {
  TIMEOUT_EXPIRED: 1,
  fenceSync: () => ({}),
  clientWaitSync: () => (drawing ? 1 : 0),
  deleteSync: () => {},
  flush: () => {},
} as unknown as WebGL2RenderingContext;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("window", globalThis);
  vi.stubGlobal("requestAnimationFrame", (next: () => void) => Number(setTimeout(next, 16)));
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Draws a frame that takes so many milliseconds; the share of it that is drawn. */
function frame(thrift: Thrift, milliseconds: number): number {
  expect(thrift.busy).toBe(false);
  const share = thrift.begin();
  drawing = true;
  thrift.end();
  vi.advanceTimersByTime(milliseconds);
  drawing = false;
  return share;
}

it("leaves out nothing because the picture has rested", () => {
  const thrift = new Thrift(gl, () => {});
  frame(thrift, 10);
  vi.advanceTimersByTime(60_000);
  expect(frame(thrift, 10)).toBe(1);
});

it("leaves out some of what is slow to draw, and draws it when the picture rests", () => {
  const thrift = new Thrift(gl, () => shares.push(frame(thrift, 300)));
  const shares = [frame(thrift, 300), frame(thrift, 300)];
  vi.advanceTimersByTime(5_000);
  expect(shares[0]).toBe(1);
  expect(shares[1]).toBeLessThan(0.2);
  expect(shares.slice(2)).toEqual([1]);
});
