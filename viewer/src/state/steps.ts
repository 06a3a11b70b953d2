/** The walk through the computation: what each step speaks of. The words are in locales/tour.*.json. */

import type { Config } from "../api/service";

/** Angles of the camera, in radians, where the computation flows to the right. */
export interface Side {
  azimuth: number;
  elevation: number;
}

/** Blocks are named as in a layout, with {layer} for the first layer, {last} for the last one and {head} for the head in
 * front; `*` is every head. */
export interface Step {
  id: string; // of its words, and in a link
  seconds: number; // at the usual speed
  formula: string; // mathematics is the same in every language; _ puts the next character below the line
  fills: readonly string[]; // computed now, cell by cell; of the first one the cells are told
  from: readonly string[]; // what they are computed from
  side?: Side; // from which they are looked at
  at?: "chosen"; // the cell of the first block that is looked at: that of the token that was chosen
  moves?: "layers" | "tokens"; // what goes on meanwhile: light from layer to layer, token after token
}

const LAYER = "blocks.{layer}.";
const HEAD = `${LAYER}attn.heads.{head}.`;
const ALL_HEADS = `${LAYER}attn.heads.*.`;
const FRONT = { azimuth: -0.1, elevation: 0.08 };
const BEFORE = { azimuth: -0.8, elevation: 0.25 }; // so that what is behind is seen, too
const AFTER = { azimuth: 0.45, elevation: 0.25 }; // and so that it does not hide what comes of it

export const STEPS: readonly Step[] = [
  { id: "start", seconds: 11, formula: "", fills: [], from: [] },
  { id: "tokens", seconds: 9, formula: "", fills: ["tokens"], from: ["embedding"], side: FRONT },
  { id: "embedding", seconds: 12, formula: "x = wte[token] + wpe[position]", fills: ["embedding"], from: ["tokens", "wte", "wpe"], side: FRONT },
  {
    id: "norm",
    seconds: 13,
    formula: "y = (x − μ) / √(σ² + ε) · γ + β",
    fills: ["out", "mean", "scale"].map((part) => `${LAYER}ln1.${part}`),
    from: ["embedding", `${LAYER}ln1.weight`, `${LAYER}ln1.bias`],
    side: FRONT,
  },
  {
    id: "qkv",
    seconds: 15,
    formula: "q = W_q·y + b_q\nk = W_k·y + b_k\nv = W_v·y + b_v",
    fills: ["q", "k", "v"].map((part) => HEAD + part),
    from: [`${LAYER}ln1.out`, ...["q", "k", "v"].flatMap((part) => [`${HEAD}${part}_weight`, `${HEAD}${part}_bias`])],
    side: BEFORE,
  },
  { id: "scores", seconds: 14, formula: "s(i, j) = q(i) · k(j) / √d", fills: [`${HEAD}scores`], from: [`${HEAD}q`, `${HEAD}k`], side: AFTER },
  {
    id: "softmax",
    seconds: 13,
    formula: "p(i, j) = exp s(i, j) / Σ_j exp s(i, j)",
    fills: [`${HEAD}pattern`, `${HEAD}scores_max`, `${HEAD}scores_sum`],
    from: [`${HEAD}scores`],
    side: FRONT,
  },
  { id: "mix", seconds: 12, formula: "z(i) = Σ_j p(i, j) · v(j)", fills: [`${HEAD}z`], from: [`${HEAD}pattern`, `${HEAD}v`], side: AFTER },
  {
    id: "project",
    seconds: 12,
    formula: "a = W_o·[z_0, z_1, …] + b_o",
    fills: [`${LAYER}attn_out`],
    from: [`${ALL_HEADS}z`, `${LAYER}attn.out_weight`, `${LAYER}attn.out_bias`],
    side: AFTER,
  },
  { id: "residual", seconds: 12, formula: "x ← x + a", fills: [`${LAYER}resid_mid`], from: ["embedding", `${LAYER}attn_out`], side: FRONT },
  {
    id: "mlp",
    seconds: 13,
    formula: "h = W_1·norm(x) + b_1",
    fills: [`${LAYER}mlp.pre`],
    from: ["ln2.out", "mlp.in_weight", "mlp.in_bias"].map((part) => LAYER + part),
    side: FRONT,
  },
  { id: "activation", seconds: 10, formula: "h ← {activation}(h)", fills: [`${LAYER}mlp.post`], from: [`${LAYER}mlp.pre`], side: FRONT },
  {
    id: "back",
    seconds: 12,
    formula: "x ← x + W_2·h + b_2",
    fills: [`${LAYER}mlp_out`, `${LAYER}resid_post`],
    from: ["mlp.post", "mlp.out_weight", "mlp.out_bias", "resid_mid"].map((part) => LAYER + part),
    side: FRONT,
  },
  { id: "layers", seconds: 12, formula: "x_0 → x_1 → … → x_{layers}", fills: [], from: [], moves: "layers" },
  {
    id: "last",
    seconds: 10,
    formula: "y = (x − μ) / √(σ² + ε) · γ + β",
    fills: ["ln_final.out", "ln_final.mean", "ln_final.scale"],
    from: ["blocks.{last}.resid_post", "ln_final.weight", "ln_final.bias"],
    side: FRONT,
  },
  { id: "logits", seconds: 12, formula: "logits = W_lm·y", fills: ["logits"], from: ["ln_final.out", "lm_head"], side: FRONT },
  { id: "probs", seconds: 12, formula: "p(v) = exp logits(v) / Σ exp logits", fills: ["probs", "logits_max", "logits_sum"], from: ["logits"], side: FRONT, at: "chosen" },
  { id: "choose", seconds: 12, formula: "next = argmax p", fills: [], from: ["probs"], side: FRONT, at: "chosen" },
  { id: "again", seconds: 14, formula: "tokens ← tokens + next", fills: [], from: [], moves: "tokens" },
];

export const stepOf = (id: string | null): Step | null => STEPS.find((step) => step.id === id) ?? null;

type Sizes = Pick<Config, "n_layer" | "n_head">;

/** The ids that a pattern stands for: in the first layer, of the last head, which is the one in front. */
export function named(pattern: string, { n_layer, n_head }: Sizes): string[] {
  const id = pattern.replace("{layer}", "0").replace("{last}", String(n_layer - 1)).replace("{head}", String(n_head - 1));
  return id.includes("*") ? Array.from({ length: n_head }, (_, head) => id.replace("*", String(head))) : [id];
}

export function allNamed(patterns: readonly string[], config: Sizes): string[] {
  return patterns.flatMap((pattern) => named(pattern, config));
}
