/**
 * Temporary: what the service does not say yet of a layout's architecture, derived from the names of GPT-2's blocks and
 * of its configuration. Nothing else in the viewer knows them. A layout whose metadata has `stacks` needs none of this.
 */

import type { Config } from "../api/service";
import type { Architecture, Kind, Part, Step } from "./description";

/** A kind as layouts describe it today. */
export type BareKind = Pick<Kind, "id" | "name" | "role" | "scope" | "dims" | "minor" | "tensor">;

const LAYER = "blocks.{layer}.";
const HEAD = `${LAYER}attn.heads.{head}.`;

const PARTS: Record<string, Part> = {
  tokens: "tokens",
  embedding: "embedding",
  [`${HEAD}q`]: "query",
  [`${HEAD}k`]: "key",
  [`${HEAD}v`]: "value",
  [`${HEAD}scores`]: "scores",
  [`${HEAD}pattern`]: "pattern",
  [`${HEAD}z`]: "mixed",
  [`${LAYER}attn_out`]: "attention_out",
  [`${LAYER}mlp.post`]: "mlp",
  [`${LAYER}resid_post`]: "resid",
  logits: "logits",
  probs: "probs",
};
const NORM = /(?:^|\.)(?:ln1|ln2|ln_final)\.\w+$/;

const PARAMETERS: [RegExp, string][] = [
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

const NORM_FORMULA = "y = (x − μ) / √(σ² + ε) · γ + β";

const ofLayer = (...ids: string[]): string[] => ids.map((id) => LAYER + id);
const ofHead = (...ids: string[]): string[] => ids.map((id) => HEAD + id);

function step(id: string, formula: string, kinds: string[], from: string[]): Step {
  return { id, name: "", text: "", formula, kinds, from };
}

const STEPS: Step[] = [
  step("tokens", "", ["tokens"], ["embedding"]),
  step("embedding", "x = wte[token] + wpe[position]", ["embedding"], ["tokens", "wte", "wpe"]),
  step("norm", NORM_FORMULA, ofLayer("ln1.out", "ln1.mean", "ln1.scale"), ["embedding", ...ofLayer("ln1.weight", "ln1.bias")]),
  step(
    "qkv",
    "q = W_q·y + b_q\nk = W_k·y + b_k\nv = W_v·y + b_v",
    ofHead("q", "k", "v"),
    [...ofLayer("ln1.out"), ...ofHead("q_weight", "q_bias", "k_weight", "k_bias", "v_weight", "v_bias")],
  ),
  step("scores", "s(i, j) = q(i) · k(j) / √d", ofHead("scores"), ofHead("q", "k")),
  step("softmax", "p(i, j) = exp s(i, j) / Σ_j exp s(i, j)", ofHead("pattern", "scores_max", "scores_sum"), ofHead("scores")),
  step("mix", "z(i) = Σ_j p(i, j) · v(j)", ofHead("z"), ofHead("pattern", "v")),
  step("project", "a = W_o·[z_0, z_1, …] + b_o", ofLayer("attn_out"), [...ofHead("z"), ...ofLayer("attn.out_weight", "attn.out_bias")]),
  step("residual", "x ← x + a", ofLayer("resid_mid"), ["embedding", ...ofLayer("attn_out")]),
  step("mlp", "h = W_1·norm(x) + b_1", ofLayer("mlp.pre"), ofLayer("ln2.out", "mlp.in_weight", "mlp.in_bias")),
  step("activation", "h ← {activation}(h)", ofLayer("mlp.post"), ofLayer("mlp.pre")),
  step("back", "x ← x + W_2·h + b_2", ofLayer("mlp_out", "resid_post"), ofLayer("mlp.post", "mlp.out_weight", "mlp.out_bias", "resid_mid")),
  step("last", NORM_FORMULA, ["ln_final.out", "ln_final.mean", "ln_final.scale"], [`${LAYER}resid_post`, "ln_final.weight", "ln_final.bias"]),
  step("logits", "logits = W_lm·y", ["logits"], ["ln_final.out", "lm_head"]),
  step("probs", "p(v) = exp logits(v) / Σ exp logits", ["probs", "logits_max", "logits_sum"], ["logits"]),
];

/** GPT-2's architecture, from the kinds of its blocks and its configuration. */
export function describeGpt2(kinds: readonly BareKind[], config: Config): Architecture {
  return {
    kinds: kinds.map((kind) => ({ ...kind, ...derived(kind) })),
    stacks: [{ name: "blocks", layers: config.n_layer }],
    groups: [{ name: "head", count: config.n_head, pattern: "heads.{head}" }],
    steps: STEPS,
    context: config.n_positions,
    activation: config.activation_function,
    tied: config.tie_word_embeddings ? ["unembedding"] : [],
  };
}

function derived({ id, role, scope }: BareKind): Pick<Kind, "stack" | "group" | "step" | "part" | "parameters"> {
  return {
    stack: scope === "model" ? null : "blocks",
    group: scope === "head" ? "head" : null,
    step: STEPS.find(({ kinds }) => kinds.includes(id))?.id ?? null,
    part: PARTS[id] ?? (NORM.test(id) ? "norm" : null),
    parameters: role === "weight" ? (PARAMETERS.find(([pattern]) => pattern.test(id))?.[1] ?? id) : null,
  };
}

/** The layers and the number of heads that determine the index maps of all blocks. */
export function samplesOf({ n_layer, n_head }: Config): { first: number; last: number; heads: number } {
  return { first: 0, last: n_layer - 1, heads: Math.min(n_head, 2) };
}

/** How many parameters a model of this configuration has. */
export function parameterCount({ n_layer, n_embd, n_inner, n_positions, vocab_size, tie_word_embeddings }: Config): number {
  const layer = 4 * n_embd ** 2 + 2 * n_embd * n_inner + n_inner + 9 * n_embd;
  return n_layer * layer + (vocab_size * (tie_word_embeddings ? 1 : 2) + n_positions + 2) * n_embd;
}

/** Fields of a configuration that a user sets for a model of any size, in the order of the form. */
export const SIZE_FIELDS = ["n_layer", "n_head", "n_embd"] as const;
const USUAL_CONTEXT = 1024;

export type Sizes = Record<(typeof SIZE_FIELDS)[number], number>;

/** What to request for a model of these sizes that takes so many tokens. */
export function requestOf(sizes: Sizes, tokens: number | null): Record<string, number> {
  return tokens !== null && tokens > USUAL_CONTEXT ? { ...sizes, n_positions: tokens } : { ...sizes };
}

/** Whether a configuration has these sizes and takes so many tokens. */
export function fits(config: Config, sizes: Sizes, tokens: number | null): boolean {
  return SIZE_FIELDS.every((field) => config[field] === sizes[field]) && (tokens === null || tokens <= config.n_positions);
}
