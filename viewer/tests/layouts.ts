/** Small layouts for tests, with one block per kind, layer and head. */

import { present } from "../src/checked/item";
import { Description, type Architecture, type Kind } from "../src/layout/description";
import { Layout } from "../src/layout/layout";
import gpt2 from "./architectures/gpt2.json";

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

/** GPT-2's architecture from the API, with some of its kinds. */
export function descriptionOf(layers: number, heads: number, change: Partial<Architecture> = {}): Description {
  const all = gpt2 as unknown as Architecture;
  const kinds = KINDS.map(([id, name, role, scope, minor]): Kind => {
    const kind = present(all.kinds.find((one) => one.id === id), id);
    return { ...kind, name, role, scope, minor, dims: [role === "weight" ? "C" : "T", "C", "B"], tensor: null };
  });
  const sizes = { stacks: [{ name: "blocks", layers }], groups: [{ name: "head", count: heads, pattern: "heads.{head}" }], context: 8 };
  return new Description({ ...all, ...sizes, kinds, ...change });
}

/** A layout of any description. */
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

export function layoutOf(layers: number, heads: number, change: Partial<Architecture> = {}): Layout {
  return layoutFrom(descriptionOf(layers, heads, change));
}
