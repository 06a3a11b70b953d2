/** Small layouts, made by hand: one block for each kind, in every layer and head. */

import { Layout, type Kind } from "../src/layout/layout";

const KINDS: [string, string, Kind["role"], Kind["scope"], boolean][] = [
  ["wte", "Token Embed", "weight", "model", false],
  ["embedding", "Input Embed", "activation", "model", false],
  ["blocks.{layer}.ln1.weight", "γ", "weight", "layer", true],
  ["blocks.{layer}.attn.heads.{head}.q_weight", "Q Weights", "weight", "head", false],
  ["blocks.{layer}.attn.heads.{head}.q", "Q vectors", "activation", "head", false],
  ["blocks.{layer}.attn.heads.{head}.q_bias", "Q Bias", "weight", "head", true],
  ["blocks.{layer}.mlp.in_weight", "MLP Weights", "weight", "layer", false],
  ["blocks.{layer}.resid_post", "MLP Residual", "activation", "layer", false],
  ["logits", "Logits", "activation", "model", false],
];

export function layoutOf(layers: number, heads: number): Layout {
  const kinds = KINDS.map(([id, name, role, scope, minor]): Kind => ({ id, name, role, scope, dims: ["T", "C", "B"], minor, tensor: null }));
  const rows = kinds.flatMap(({ scope }, kind) => {
    const layer = (n: number): number[][] => (scope === "head" ? Array.from({ length: heads }, (_, head) => [kind, n, head]) : [[kind, n, -1]]);
    return scope === "model" ? [[kind, -1, -1]] : Array.from({ length: layers }, (_, n) => layer(n)).flat();
  });
  const column = (at: number): Int32Array => Int32Array.from(rows, (row) => row[at]);
  const facts = { config: { n_layer: layers, n_head: heads, n_embd: 4, n_positions: 8, tie_word_embeddings: false } };
  const cells = Int32Array.from(rows.flatMap(() => [2, 3, 1]));
  return new Layout(facts as never, kinds, new Float64Array(3 * rows.length), new Float64Array(3 * rows.length), cells, column(1), column(2), new Uint8Array(rows.length), Uint8Array.from(column(0)), new Map());
}
