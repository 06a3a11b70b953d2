/** Colours of values: four hues, each from dark near 0 to bright. */

import { Color, LinearSRGBColorSpace } from "three";

import type { Colour } from "../state/view";

export interface Palette {
  hues: [string, string, string, string]; // weights above and below 0, values above and below 0
  ground: [string, string]; // of weights and of values near 0
}

export const PALETTES: Record<Colour["palette"], Palette> = {
  classic: { hues: ["#5aaaff", "#a06bf0", "#4fd68a", "#ff9440"], ground: ["#101b33", "#0e241d"] },
  safe: { hues: ["#3d86ff", "#cf6a35", "#5cf2f2", "#ffc247"], ground: ["#0f1b33", "#0e2426"] }, // blue above 0, orange below
};

/** The brightness of a value, 0…1, by the same curve as in the shader; `share`: of the value with full brightness. */
export function brightness(share: number, { scale, gain }: Pick<Colour, "scale" | "gain">): number {
  const m = Math.min(Math.abs(share) * gain, 1);
  return scale === "log" ? Math.log2(1 + 1023 * m) / 10 : m;
}

/** A three.js colour without conversion between colour spaces. */
export function raw(hex: string): Color {
  return new Color().setStyle(hex, LinearSRGBColorSpace);
}

/** The colour of a value as "rgb(…)", as in the shader; `share` of full brightness is from −1 to 1. */
export function colourOf(share: number, kind: "weight" | "value", colour: Colour): string {
  return `rgb(${channelsOf(share, kind, colour).join()})`;
}

/** The same as red, green and blue, 0…255. */
export function channelsOf(share: number, kind: "weight" | "value", colour: Colour): [number, number, number] {
  const { hues, ground } = PALETTES[colour.palette];
  const m = brightness(share, colour);
  const [above, below] = kind === "weight" ? [hues[0], hues[1]] : [hues[2], hues[3]];
  const [low, high] = [channels(kind === "weight" ? ground[0] : ground[1]), channels(share < 0 ? below : above)];
  const mix = (n: 0 | 1 | 2): number => Math.round(low[n] + m * (high[n] - low[n]));
  return [mix(0), mix(1), mix(2)];
}

type Channels = [number, number, number];

function channels(hex: string): Channels {
  const channel = (from: number): number => parseInt(hex.slice(from, from + 2), 16);
  return [channel(1), channel(3), channel(5)];
}

/** The text colour with the higher contrast to a background (WCAG 2: at least 4.5 : 1). */
export function inkOn([red, green, blue]: Readonly<Channels>): "dark" | "light" {
  const linear = (c: number): number => (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) > 0.179 ? "dark" : "light";
}
