/** Colours of values: four hues, each from dark near 0 to bright; also for the legend. */

import { Color, LinearSRGBColorSpace } from "three";

import type { Colour } from "../state/view";

export interface Palette {
  hues: [string, string, string, string]; // weights above and below 0, values above and below 0
  ground: [string, string]; // of weights and of values near 0
}

export const PALETTES: Record<Colour["palette"], Palette> = {
  classic: { hues: ["#5aaaff", "#a06bf0", "#4fd68a", "#ff9440"], ground: ["#101b33", "#0e241d"] },
  safe: { hues: ["#56b4e9", "#cc79a7", "#f0e442", "#d55e00"], ground: ["#12202c", "#1d1c14"] },
};

/** How bright a value is, 0…1, where 1 stands for the block's largest: the same curve as in the shader. */
export function brightness(share: number, { scale, gain }: Pick<Colour, "scale" | "gain">): number {
  const m = Math.min(Math.abs(share) * gain, 1);
  return scale === "log" ? Math.log2(1 + 1023 * m) / 10 : m;
}

/** As numbers that go to the screen as they are. */
export function raw(hex: string): Color {
  return new Color().setStyle(hex, LinearSRGBColorSpace);
}
