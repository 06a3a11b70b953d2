import { expect, test } from "vitest";

import { blockAfter, rolloutOf, rolloutQuery, windowOf } from "../../src/reading/lens";
import { layoutOf } from "../layouts";

test.each([
  [0, "embedding"],
  [1, "blocks.0.resid_post"],
  [95, "blocks.94.resid_post"],
  [96, "blocks.95.resid_post"],
])("after %i layers, the residual stream is in the block %s", (layers, block) => expect(blockAfter(layoutOf(96, 1), layers)).toBe(block));

test.each([1, 11, 361, 362, 1024, 2048])("the rollout of %i positions is never more than the service tells, and ends with the last", (positions) => {
  const [start = NaN, stop = NaN] = rolloutQuery(positions)["positions"]!.split(":").map(Number);
  expect(stop).toBe(positions);
  expect(start).toBeLessThan(stop);
  expect((stop - start) * (positions + 1)).toBeLessThanOrEqual(131_072);
  if (positions <= 361) expect(start).toBe(0);
});

test("a rollout's shares become rows of a square, 0 where missing", () => {
  const told = { rollout: [{ position: 1, shares: [0.25, 0.75] }, { position: 2, shares: [0.5, 0.25, 0.25] }] };
  expect([...rolloutOf(told as never, 3)]).toEqual([0, 0, 0, 0.25, 0.75, 0, 0.5, 0.25, 0.25]);
});

test("windows contain the position and are full if possible", () => {
  for (const positions of [1, 5, 16, 17, 40])
    for (let at = 0; at < positions; at++) {
      const { start, stop } = windowOf(at, positions, 16);
      expect(at).toBeGreaterThanOrEqual(start);
      expect(at).toBeLessThan(stop);
      expect(stop - start).toBe(Math.min(16, positions));
    }
});
