import { expect, test } from "vitest";

import { inputTokens, lastPosition, visible } from "../../src/reading/tokens";

const piece = (text: string, token: number) => ({ text, token });
const trace = { pieces: [piece("C", 2), piece("B", 1)], generated: [piece("A", 0), piece("B", 1), piece("C", 2)] } as never;

test("input tokens are the prompt and all generated tokens but the last", () => {
  expect(inputTokens(trace).map(({ text, generated }) => [text, generated])).toEqual([["C", false], ["B", false], ["A", true], ["B", true]]);
});

test("the last position of a step is the one its token was sampled from", () => {
  expect([0, 1, 2, 3, null].map((step) => lastPosition(trace, step))).toEqual([1, 1, 2, 3, 3]);
});

test("without new tokens the last position is the prompt's", () => {
  expect(lastPosition({ pieces: [piece("C", 2)] } as never, null)).toBe(0);
});

test("whitespace is visible", () => expect(visible(" a\n\tb")).toBe("␣a⏎⇥b"));
