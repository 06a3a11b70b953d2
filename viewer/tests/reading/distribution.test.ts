import { item } from "../../src/checked/item";
import { expect, test } from "vitest";

import { entropy, softmax, top } from "../../src/reading/distribution";

const logits = [2, -1, 0.5, 7, 7 - 1e-9, -40];

test.each([0, 0.05, 0.7, 1, 5])("probabilities at temperature %s are of one whole", (temperature) => {
  const all = softmax(logits, temperature);
  expect(all.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
  expect(Math.min(...all)).toBeGreaterThanOrEqual(0);
});

test("temperature 1 is the softmax of the logits", () => {
  const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
  softmax(logits, 1).forEach((p, n) => expect(p).toBeCloseTo(Math.exp(item(logits, n)) / sum, 12));
});

test("temperature 0 is greedy", () => {
  expect([...softmax(logits, 0)]).toEqual([0, 0, 0, 1, 0, 0]);
  expect([...softmax([3, 3], 0)]).toEqual([1, 0]);
});

test("a higher temperature keeps the order and raises the entropy", () => {
  const order = (temperature: number): number[] => top(softmax(logits, temperature), 3).map(({ token }) => token);
  expect(order(0.5)).toEqual(order(4));
  const bits = [0, 0.2, 1, 3, 1000].map((temperature) => entropy(softmax(logits, temperature)));
  expect(bits).toEqual([...bits].sort((a, b) => a - b));
  expect(bits[0]).toBe(0);
  expect(entropy(softmax(logits, 1e9))).toBeCloseTo(Math.log2(logits.length), 6);
});

test("logits of any size do not overflow", () => {
  expect([...softmax([1e4, -1e4], 0.01)]).toEqual([1, 0]);
});

test("the top tokens equal the sorted ones, up to their number", () => {
  const values = Array.from({ length: 200 }, (_, n) => ((n * 7919) % 101) / 101);
  const sorted = values.map((probability, token) => ({ token, probability })).sort((a, b) => b.probability - a.probability || a.token - b.token);
  expect(top(values, 12)).toEqual(sorted.slice(0, 12));
  expect(top([0.5, 0.5], 12)).toHaveLength(2);
});
