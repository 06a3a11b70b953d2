/** The number of parameters of each part of a model, and memory sizes. */

import type { Model } from "../api/service";
import { isPosition } from "../layout/description";
import type { Layout } from "../layout/layout";

export interface Part {
  name: string; // as in the API
  count: number;
  share: number; // of the total
  tied: boolean; // shared with another part
}

/** The parts, in descending order; for a model that the API does not list, counted from the layout. */
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

/** The number of parameters of a model. */
export function parametersOf(layout: Layout, model: Model | null): number {
  const known = model?.parameters.total ?? totals.get(layout);
  if (known !== undefined) return known;
  const total = totalOf(partsOf(layout, null));
  totals.set(layout, total);
  return total;
}

/** Counts the cells of weights. A position table's block ends at the last token; its parameters are the whole context. */
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

/** Bytes of the KV cache per token, in float16. */
export function cachePerToken(layout: Layout): number {
  const { description } = layout;
  const numbers = (["key", "value"] as const).map((part) => {
    const kind = description.part(part);
    return kind ? description.countOf(kind).blocks * layout.widthOf(part) : 0;
  });
  return 2 * numbers.reduce((sum, count) => sum + count, 0);
}
