/** How many parameters each part of a model has, and what they take. */

import type { Config, Model } from "../api/service";
import type { Layout } from "../layout/layout";

export interface Part {
  name: string; // as the service calls it
  count: number;
  share: number; // of all that are counted
  tied: boolean; // the same numbers as another part's
}

/** The parts, the largest first; of a size of one's own, counted from the picture. */
export function partsOf(layout: Layout, model: Model | null): Part[] {
  const { tie_word_embeddings: tied } = layout.config;
  const counts = Object.entries((model?.parameters.by_part as Record<string, number> | undefined) ?? counted(layout));
  const total = counts.reduce((sum, [name, count]) => sum + (tied && name === "unembedding" ? 0 : count), 0);
  return counts
    .map(([name, count]) => ({ name, count, share: count / total, tied: tied && name === "unembedding" }))
    .sort((a, b) => b.count - a.count);
}

export function totalOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { count, tied }) => sum + (tied ? 0 : count), 0);
}

/** Every weight has a block: their cells are the parameters. */
function counted({ kinds, kind, cells, config, count }: Layout): Record<string, number> {
  const parts: Record<string, number> = {};
  for (let row = 0; row < count; row++) {
    const { id, role } = kinds[kind[row]];
    if (role !== "weight") continue;
    const part = partOf(id);
    const size = cells[3 * row] * cells[3 * row + 1] * cells[3 * row + 2];
    parts[part] = (parts[part] ?? 0) + (id === "wpe" ? config.n_positions * config.n_embd : size);
  }
  return parts;
}

const PARTS: [RegExp, string][] = [
  [/^wte$/, "embedding"],
  [/^wpe$/, "position"],
  [/^lm_head$/, "unembedding"],
  [/ln\w*\.(weight|bias)$/, "layer_norm"],
  [/bias$/, "biases"],
  [/\.q_weight$/, "query"],
  [/\.k_weight$/, "key"],
  [/\.v_weight$/, "value"],
  [/attn\.out_weight$/, "output"],
  [/mlp\.in_weight$/, "up_projection"],
  [/mlp\.out_weight$/, "down_projection"],
];

function partOf(id: string): string {
  return PARTS.find(([pattern]) => pattern.test(id))?.[1] ?? id;
}

/** Bytes of the keys and values that are kept for a position so that later ones can attend to it, in float16. */
export function cachePerToken({ n_layer, n_head, d_head }: Config): number {
  return 2 * n_layer * n_head * d_head * 2;
}
