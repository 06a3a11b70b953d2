/** How many parameters each part of a model has, and how much memory they take. */

import type { Model } from "../api/service";
import { isPosition } from "../layout/description";
import type { Layout } from "../layout/layout";

export interface Part {
  name: string; // as the service calls it
  count: number;
  share: number; // of all that are counted
  tied: boolean; // the same numbers as another part's
}

/** The parts, the largest first; of a model that the service does not list, counted from the layout. */
export function partsOf(layout: Layout, model: Model | null): Part[] {
  const { tied } = layout.description;
  const counts = Object.entries((model?.parameters.by_part as Record<string, number> | undefined) ?? counted(layout));
  const total = counts.reduce((sum, [name, count]) => sum + (tied.includes(name) ? 0 : count), 0);
  return counts
    .map(([name, count]) => ({ name, count, share: count / total, tied: tied.includes(name) }))
    .sort((a, b) => b.count - a.count);
}

export function totalOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { count, tied }) => sum + (tied ? 0 : count), 0);
}

const totals = new WeakMap<Layout, number>(); // counted once: there may be many blocks

/** How many parameters a model has. */
export function parametersOf(layout: Layout, model: Model | null): number {
  const known = model?.parameters.total ?? totals.get(layout);
  if (known !== undefined) return known;
  const total = totalOf(partsOf(layout, null));
  totals.set(layout, total);
  return total;
}

/** Every weight has a block: their cells are the parameters. A table of positions is drawn as far as there are tokens. */
function counted(layout: Layout): Record<string, number> {
  const parts: Record<string, number> = {};
  for (let row = 0; row < layout.count; row++) {
    const { parameters: part, dims } = layout.kindAt(row);
    if (part === null) continue;
    const sizes = layout.cellsOf(row).map((size, axis) => (isPosition(dims[axis]) ? layout.description.context : size));
    parts[part] = (parts[part] ?? 0) + sizes.reduce((product, size) => product * size, 1);
  }
  return parts;
}

/** Bytes of the keys and values that are stored for a position so that later ones can attend to it, in float16. */
export function cachePerToken(layout: Layout): number {
  const { description } = layout;
  const numbers = (["key", "value"] as const).map((part) => {
    const kind = description.part(part);
    return kind ? description.countOf(kind).blocks * layout.widthOf(part) : 0;
  });
  return 2 * numbers.reduce((sum, count) => sum + count, 0);
}
