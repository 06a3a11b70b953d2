/** The range of values of tensors. */

import type { Trace } from "../api/service";
import { numbersIn } from "../layout/description";

type Facts = NonNullable<Trace["tensors"]>[string];

/** The smallest and the largest value; `absmax` is the larger magnitude. */
export interface Extent {
  min: number;
  max: number;
  absmax: number;
}

/** The range over the tensors of these layers (-1: tensors outside layers); null if they have no values. */
export function extentOf(tensors: Record<string, Facts>, layers: ReadonlySet<number>): Extent | null {
  let [least, most] = [Infinity, -Infinity];
  for (const [name, { min, max }] of Object.entries(tensors)) {
    const layer = numbersIn(name)[0] ?? -1;
    const [low, high] = [min ?? NaN, max ?? NaN];
    if (!layers.has(layer) || !Number.isFinite(low) || !Number.isFinite(high)) continue;
    least = Math.min(least, low);
    most = Math.max(most, high);
  }
  return least <= most ? { min: least, max: most, absmax: Math.max(-least, most) } : null;
}

/** A number rounded up to two digits. */
export function rounded(value: number): number {
  if (!(value > 0)) return 1;
  const unit = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.ceil(value / unit - 1e-9) * unit).toPrecision(2));
}
