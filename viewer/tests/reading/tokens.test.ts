import { expect, test } from "vitest";

import { fedOf, lastPosition, visible } from "../../src/reading/tokens";

const piece = (text: string, token: number) => ({ text, token });
const trace = { pieces: [piece("C", 2), piece("B", 1)], generated: [piece("A", 0), piece("B", 1), piece("C", 2)] } as never;

test("what was fed is the prompt and all new tokens but the last", () => {
  expect(fedOf(trace).map(({ text, made }) => [text, made])).toEqual([["C", false], ["B", false], ["A", true], ["B", true]]);
});

test("each step's distribution is the one from which its token was drawn", () => {
  expect([0, 1, 2, 3, null].map((step) => lastPosition(trace, step))).toEqual([1, 1, 2, 3, 3]);
});

test("without new tokens the last position is the prompt's", () => {
  expect(lastPosition({ pieces: [piece("C", 2)] } as never, null)).toBe(0);
});

test("white space can be seen", () => expect(visible(" a\n\tb")).toBe("␣a⏎⇥b"));
