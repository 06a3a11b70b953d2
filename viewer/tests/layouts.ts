/** Small layouts, made by hand: one block for each kind, in every layer and head. */

import { Description, type Kind } from "../src/layout/description";
import { describeGpt2, type BareKind } from "../src/layout/gpt2";
import { Layout } from "../src/layout/layout";

const KINDS: [string, string, Kind["role"], Kind["scope"], boolean][] = [
  ["wte", "Token Embed", "weight", "model", false],
  ["embedding", "Input Embed", "activation", "model", false],
  ["blocks.{layer}.ln1.weight", "γ", "weight", "layer", true],
  ["blocks.{layer}.attn.heads.{head}.q_weight", "Q Weights", "weight", "head", false],
  ["blocks.{layer}.attn.heads.{head}.q", "Q vectors", "activation", "head", false],
  ["blocks.{layer}.attn.heads.{head}.q_bias", "Q Bias", "weight", "head", true],
  ["blocks.{layer}.attn.heads.{head}.z", "V Output", "activation", "head", false],
  ["blocks.{layer}.mlp.in_weight", "MLP Weights", "weight", "layer", false],
  ["blocks.{layer}.resid_post", "MLP Residual", "activation", "layer", false],
  ["logits", "Logits", "activation", "model", false],
  ["probs", "Probabilities", "activation", "model", false],
];

const SIZES = { n_embd: 4, n_inner: 16, d_head: 2, vocab_size: 9, n_positions: 8, activation_function: "gelu", tie_word_embeddings: false };

/** The description of a GPT-2 with a few of its kinds. */
export function descriptionOf(layers: number, heads: number, change: object = {}): Description {
  const kinds = KINDS.map(([id, name, role, scope, minor]): BareKind => ({ id, name, role, scope, dims: [role === "weight" ? "C" : "T", "C", "B"], minor, tensor: null }));
  return new Description(describeGpt2(kinds, { ...SIZES, n_layer: layers, n_head: heads, ...change } as never));
}

/** A layout of any description whose members of groups are counted by `description.members`. */
export function layoutFrom(description: Description): Layout {
  const rows = description.kinds.flatMap(({ stack, group }, kind) => {
    const members = (layer: number): number[][] =>
      group === null ? [[kind, layer, -1]] : Array.from({ length: description.members(group) }, (_, member) => [kind, layer, member]);
    return stack === null ? members(-1) : Array.from({ length: description.layers(stack) }, (_, layer) => members(layer)).flat();
  });
  const column = (n: number): Int32Array => Int32Array.from(rows, (row) => row[n] ?? -1);
  const places = (): Float64Array => new Float64Array(3 * rows.length);
  const columns = { position: places(), size: places(), cells: Int32Array.from(rows.flatMap(() => [2, 3, 1])), layer: column(1), head: column(2) };
  return new Layout({ id: "L" } as never, description, { ...columns, role: new Uint8Array(rows.length), kind: Uint8Array.from(column(0)) }, new Map());
}

export function layoutOf(layers: number, heads: number, change: object = {}): Layout {
  return layoutFrom(descriptionOf(layers, heads, change));
}
