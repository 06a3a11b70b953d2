import { beforeEach, describe, expect, it, test } from "vitest";

import type { Formula } from "../../src/api/service";
import { inWords, masks, partsOf } from "../../src/reading/formula";
import { setLanguage, type Language } from "../../src/i18n/text";

const formula = (op: string, inputs: string[], more: Partial<Formula> = {}): Formula =>
  ({ op, over: null, ...more, inputs: inputs.map((block) => ({ block, index: [] })) }) as Formula;

const CASES: [string, Formula][] = [
  ["The token at this position, given in the request.", formula("input", [])],
  ["The row of “b” for the token at this position, plus the row of “c” for the position.", formula("embed", ["a", "b", "c"])],
  ["The mean of 48 values of “a”.", formula("mean", ["a"], { over: 48 })],
  ["The standard deviation of 48 values of “a”, with a small ε that keeps it above zero.", formula("norm_scale", ["a", "b"], { over: 48, epsilon: 1e-5 })],
  ["“a” minus its mean, divided by its standard deviation, times “d”, plus “e”.", formula("layer_norm", ["a", "b", "c", "d", "e"])],
  ["The sum of 48 products of “a” and “b”.", formula("dot", ["a", "b"], { over: 48 })],
  ["The sum of 48 products of “a” and “b”, plus “c”.", formula("dot", ["a", "b", "c"], { over: 48 })],
  ["The sum of 32 products of “a” and “b”, plus “e”.", formula("dot", ["a", "b", "c", "d", "e"], { over: 16 })],
  ["The sum of 16 products of “a” and “b”, divided by √16.", formula("dot", ["a", "b"], { over: 16, scale: 0.25 })],
  ["The sum of 16 products of “a” and “b”, divided by √16; later positions are masked (−∞).", formula("dot", ["a", "b"], { over: 16, scale: 0.25, mask: "causal" })],
  ["The sum of 16 products of “a” and “b”, divided by √16; later positions, and those 4 or more before, are masked (−∞).", formula("dot", ["a", "b"], { over: 16, scale: 0.25, mask: "window", window: 4 })],
  ["“a”, kept between −50 and 50 by a curve that is nearly straight around 0.", formula("softcap", ["a"], { cap: 50 })],
  ["The largest of 11 values of “a”.", formula("max", ["a"], { over: 11 })],
  ["The sum of the exponentials of 11 values of “a”, each minus “b”.", formula("sum_exp", ["a", "b"], { over: 11 })],
  ["Softmax: the exponential of “a” minus “b”, divided by “c”.", formula("softmax", ["a", "b", "c"])],
  ["The sum of “a” and “b”.", formula("add", ["a", "b"])],
  ["The function GELU of “a”.", formula("activation", ["a"], { function: "gelu_new" })],
];

const inLanguage = (language: Language): void => {
  Object.assign(globalThis, { document: { documentElement: {} } });
  setLanguage(language);
};
beforeEach(() => inLanguage("en"));

test.each(CASES)("%s", (sentence, one) => {
  expect(inWords(one, (block) => block)).toBe(sentence);
});

describe.each(["en", "zh-Hant"] as const)("in %s", (language) => {
  test.each(CASES.map(([, one]) => one))("$op has a sentence without empty placeholders", (one) => {
    inLanguage(language);
    const sentence = inWords(one, (block) => `<${block}>`);
    expect(sentence).not.toMatch(/[{}]|undefined|NaN|“”|「」/);
    expect(sentence).not.toBe("");
  });
});

test("a mask hides later keys, and a window those before it", () => {
  const [none, causal, window] = [formula("dot", ["a", "b"]), formula("dot", ["a", "b"], { mask: "causal" }), formula("dot", ["a", "b"], { mask: "window", window: 2 })];
  const cells = [[0, 2], [1, 2], [2, 2], [3, 2]];
  expect(cells.map((cell) => masks(none, cell))).toEqual([false, false, false, false]);
  expect(cells.map((cell) => masks(causal, cell))).toEqual([false, false, false, true]);
  expect(cells.map((cell) => masks(window, cell))).toEqual([true, false, false, true]);
});

test("an unknown operation has no sentence", () => {
  expect(inWords(formula("convolve", ["a"]), (block) => block)).toBe("");
});

describe("an explanation from the API", () => {
  it("is split into a sentence and the sides of an equation", () => {
    expect(partsOf("The mean of the 48 channels of x: mean[1] = (Σ(s = 0…47) x[1, s]) / 48 = 0.5")).toEqual({
      sentence: "The mean of the 48 channels of x:",
      sides: ["mean[1]", "= (Σ(s = 0…47) x[1, s]) / 48", "= 0.5"],
    });
  });

  it("may have a colon in its sentence", () => {
    const { sentence, sides } = partsOf("Softmax: the exponential of scores, as a share of all: p[2] = exp(s[2]) / t = 0.5");
    expect(sentence).toBe("Softmax: the exponential of scores, as a share of all:");
    expect(sides).toEqual(["p[2]", "= exp(s[2]) / t", "= 0.5"]);
  });
});
