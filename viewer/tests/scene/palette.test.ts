import { item } from "../../src/checked/item";
import { expect, test } from "vitest";

import { PALETTES, brightness, channelsOf, inkOn } from "../../src/scene/palette";
import { INITIAL, type Colour } from "../../src/state/view";

// Simulation of dichromacy in linear RGB: Machado, Oliveira and Fernandes 2009.
const SIGHT = {
  all: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  "no long cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  "no middle cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  "no short cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};
const times = (matrix: number[][], vector: number[]): number[] => matrix.map((row) => row.reduce((sum, a, n) => sum + a * item(vector, n), 0));
const linear = (hex: string): number[] => [1, 3, 5].map((from) => parseInt(hex.slice(from, from + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
const luminance = (rgb: number[]): number => 0.2126 * item(rgb, 0) + 0.7152 * item(rgb, 1) + 0.0722 * item(rgb, 2);

function oklab(rgb: number[]): number[] {
  const cones = times([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]], rgb);
  return times([[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]], cones.map(Math.cbrt));
}

test.each(Object.entries(SIGHT))("the four hues that are for all colour vision differ clearly for eyes with %s", (_, sight) => {
  const seen = PALETTES.safe.hues.map((hue) => oklab(times(sight, linear(hue)).map((c) => Math.min(Math.max(c, 0), 1))));
  for (let a = 0; a < 4; a++) for (let b = 0; b < a; b++) expect(Math.hypot(...item(seen, a).map((c, n) => c - item(item(seen, b), n)))).toBeGreaterThan(0.15);
});

test.each(Object.keys(PALETTES) as Colour["palette"][])("every hue of %s stands out from the ground of the picture", (name) => {
  for (const hue of PALETTES[name].hues) expect((luminance(linear(hue)) + 0.05) / (luminance(linear("#0b0e14")) + 0.05)).toBeGreaterThan(4.5);
});

test.each([["linear", 1], ["log", 1], ["log", 4], ["linear", 0.25]] as const)("brightness on a %s scale with gain %d rises from 0, the same above and below it", (scale, gain) => {
  const shares = [0, 0.001, 0.01, 0.1, 0.5, 1];
  const bright = shares.map((share) => brightness(share, { scale, gain }));
  expect(bright[0]).toBe(0);
  expect(bright).toEqual([...bright].sort((a, b) => a - b));
  expect(shares.map((share) => brightness(-share, { scale, gain }))).toEqual(bright);
  expect(bright.at(-1)).toBeLessThanOrEqual(1);
});

test("small values are brighter on the logarithmic scale", () => {
  for (const share of [0.001, 0.01, 0.1]) expect(brightness(share, { scale: "log", gain: 1 })).toBeGreaterThan(brightness(share, { scale: "linear", gain: 1 }));
});

test("text is legible on any shade", () => {
  for (const palette of ["classic", "safe"] as const)
    for (let share = 0; share <= 1; share += 0.05) {
      const ground = channelsOf(share, "value", { ...INITIAL.colour, palette });
      const ink = luminance(linear(inkOn(ground) === "dark" ? "#000000" : "#ffffff"));
      const behind = luminance(linear(`#${ground.map((c) => c.toString(16).padStart(2, "0")).join("")}`));
      expect((Math.max(ink, behind) + 0.05) / (Math.min(ink, behind) + 0.05)).toBeGreaterThanOrEqual(4.5);
    }
});
