import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { FrameBudget } from "../../src/scene/budget";

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

/** Draws a frame that takes this many milliseconds; returns the share of blocks drawn. */
function frame(budget: FrameBudget, milliseconds: number): number {
  expect(budget.busy).toBe(false);
  const share = budget.begin();
  drawing = true;
  budget.end();
  vi.advanceTimersByTime(milliseconds);
  drawing = false;
  return share;
}

it("draws everything after a rest", () => {
  const budget = new FrameBudget(gl, () => {});
  frame(budget, 10);
  vi.advanceTimersByTime(60_000);
  expect(frame(budget, 10)).toBe(1);
});

it("draws fewer blocks when frames are slow, and all of them when the camera rests", () => {
  const budget = new FrameBudget(gl, () => shares.push(frame(budget, 300)));
  const shares = [frame(budget, 300), frame(budget, 300)];
  vi.advanceTimersByTime(5_000);
  expect(shares[0]).toBe(1);
  expect(shares[1]).toBeLessThan(0.2);
  expect(shares.slice(2)).toEqual([1]);
});
