import { expect, test } from "vitest";

import { neighbour, type Place } from "../../src/picking/neighbours";

const LEFT = { x: -1, y: 0 }, RIGHT = { x: 1, y: 0 }, UP = { x: 0, y: -1 }, DOWN = { x: 0, y: 1 };
type Cell = [number, number, number];
const upright = ([i, j]: Cell): Place => ({ x: 10 * i, y: 10 * j });
const turned = ([i, j]: Cell): Place => ({ x: 10 * j, y: -10 * i }); // as for flow to the right
const tilted = ([i, j]: Cell): Place => ({ x: 8 * i + 2 * j, y: 3 * i + 9 * j });

test.each([
  ["upright", upright, [[RIGHT, [3, 2]], [LEFT, [1, 2]], [DOWN, [2, 3]], [UP, [2, 1]]]],
  ["turned", turned, [[RIGHT, [2, 3]], [LEFT, [2, 1]], [DOWN, [1, 2]], [UP, [3, 2]]]],
  ["tilted", tilted, [[RIGHT, [3, 2]], [LEFT, [1, 2]], [DOWN, [2, 3]], [UP, [2, 1]]]],
] as const)("an arrow goes to the cell that is seen there: %s", (_, seen, moves) => {
  for (const [arrow, to] of moves) expect(neighbour([2, 2, 0], [5, 5, 1], arrow, seen)).toEqual([...to, 0]);
});

test("opposite arrows return to the same cell", () => {
  for (const seen of [upright, turned, tilted])
    for (const [there, back] of [[LEFT, RIGHT], [UP, DOWN]] as const)
      expect(neighbour(neighbour([2, 2, 0], [5, 5, 1], there, seen), [5, 5, 1], back, seen)).toEqual([2, 2, 0]);
});

test("at the edge the cell stays the same", () => {
  expect(neighbour([0, 2, 0], [5, 5, 1], LEFT, upright)).toEqual([0, 2, 0]);
  expect(neighbour([4, 4, 0], [5, 5, 1], DOWN, upright)).toEqual([4, 4, 0]);
  expect(neighbour([0, 0, 0], [1, 1, 1], RIGHT, tilted)).toEqual([0, 0, 0]);
});

test("when all cells project to one point the cell stays the same", () => {
  expect(neighbour([2, 2, 0], [5, 5, 1], RIGHT, () => ({ x: 0, y: 0 }))).toEqual([2, 2, 0]);
});
