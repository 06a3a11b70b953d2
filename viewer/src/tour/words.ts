/** What the tour says, with the model's own numbers. */

import en from "../../locales/tour.en.json";
import zhHant from "../../locales/tour.zh-Hant.json";
import type { Config } from "../api/service";
import { blockName } from "../i18n/names";
import { compact, number, t, used, type Language } from "../i18n/text";
import type { Figure } from "../state/state";
import { allNamed, type Step } from "../state/steps";

export const WORDS: Record<Language, Record<string, string>> = { en, "zh-Hant": zhHant };

export type Facts = Record<string, string>;

/** What the texts may speak of; what is not known is left out. */
export function facts({ ref, model, layout, trace }: Figure): Facts {
  const { config } = layout;
  const told: Facts = {
    model: model?.name ?? (typeof ref === "string" ? ref : WORDS[used()]["start.own"]),
    parameters: number(model?.parameters.total ?? parameters(config)),
    layers: number(config.n_layer),
    heads: number(config.n_head),
    width: number(config.n_embd),
    head_width: number(config.d_head),
    inner: number(config.n_inner),
    vocab: number(config.vocab_size),
    tokens: number(layout.facts.tokens ?? config.n_positions),
    activation: config.activation_function.startsWith("gelu") ? "GELU" : config.activation_function,
  };
  if (!trace) return told;
  told["prompt"] = quoted(trace.pieces.map(({ text }) => text).join(""));
  told["pieces"] = trace.pieces.map(({ text }) => quoted(text)).join(" ");
  const [first] = trace.generated ?? [];
  if (!first) return told;
  told["output"] = quoted(trace.output ?? "");
  told["next"] = quoted(first.text);
  told["probability"] = percent(first.probability);
  told["top"] = (first.top ?? []).slice(0, 3).map(({ text, probability }) => `${quoted(text)} ${percent(probability)}`).join(" · ");
  return told;
}

/** A text of a step; null where there is none, or where it speaks of what is not known. */
export function say(step: string, part: "title" | "text" | "values" | "empty" | "synthetic", told: Facts, language = used()): string | null {
  const text = WORDS[language][`${step}.${part}`] ?? en[`${step}.${part}` as keyof typeof en];
  return text === undefined ? null : fill(text, told);
}

/** How many numbers a step computes: in the first of its blocks, and in all that are like it. */
export function sizeNote({ fills }: Step, { layout }: Figure): string | null {
  const [id] = allNamed(fills, layout.config);
  const row = id === undefined ? null : layout.row(id);
  if (row === null) return null;
  const kind = layout.kindAt(row);
  const { n_layer: layers, n_head: heads } = layout.config;
  const cells = layout.cellsOf(row).reduce((product, size) => product * size, 1);
  const total = cells * { model: 1, layer: layers, head: layers * heads }[kind.scope];
  return t(`tour.size.${kind.scope}`, { block: blockName(kind), n: number(cells), layers: number(layers), heads: number(heads), total: compact(total) });
}

/** Puts facts into {places}; null where one is missing. */
export function fill(text: string, told: Facts): string | null {
  let whole = true;
  const filled = text.replace(/\{(\w+)\}/g, (_, name: string) => {
    whole &&= name in told;
    return told[name];
  });
  return whole ? filled : null;
}

const quoted = (text: string): string => (used() === "zh-Hant" ? `「${text}」` : `“${text}”`);
const percent = (share: number): string => (share < 0.0005 ? "<\u00a00.1\u00a0%" : share > 0.9995 && share < 1 ? ">\u00a099.9\u00a0%" : `${number(100 * share, 1)}\u00a0%`);

/** As many as a GPT of these sizes has. */
export function parameters({ n_layer, n_embd, n_inner, n_positions, vocab_size, tie_word_embeddings }: Config): number {
  const layer = 4 * n_embd ** 2 + 2 * n_embd * n_inner + n_inner + 9 * n_embd;
  return n_layer * layer + (vocab_size * (tie_word_embeddings ? 1 : 2) + n_positions + 2) * n_embd;
}
