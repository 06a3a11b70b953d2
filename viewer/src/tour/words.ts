/** The texts of the tour, filled in with the model's numbers. */

import en from "../../locales/tour.en.json";
import zhHant from "../../locales/tour.zh-Hant.json";
import { blockName } from "../i18n/names";
import { compact, number, t, currentLanguage, type Language } from "../i18n/text";
import type { Figure } from "../state/state";
import type { TourStep } from "../state/steps";
import { parametersOf } from "../reading/parameters";

export const WORDS: Record<Language, Record<string, string>> = { en, "zh-Hant": zhHant };

export type Facts = Record<string, string>;

/** The values of the placeholders in texts; unknown ones are omitted. */
export function facts({ ref, model, layout, trace }: Figure): Facts {
  const { description } = layout;
  const values: Facts = {
    model: model?.name ?? (typeof ref === "string" ? ref : WORDS[currentLanguage()]["start.own"] ?? t("own")),
    parameters: number(parametersOf(layout, model)),
    layers: number(description.layers()),
    heads: number(description.heads),
    width: number(layout.widthOf("embedding")),
    head_width: number(layout.widthOf("query")),
    inner: number(layout.widthOf("mlp")),
    vocab: number(layout.widthOf("logits")),
    tokens: number(layout.facts.tokens),
    activation: description.activation?.startsWith("gelu") ? "GELU" : (description.activation ?? ""),
  };
  if (!trace) return values;
  values["prompt"] = quoted(trace.pieces.map(({ text }) => text).join(""));
  values["pieces"] = trace.pieces.map(({ text }) => quoted(text)).join(" ");
  const [first] = trace.generated ?? [];
  if (!first) return values;
  values["output"] = quoted(trace.output ?? "");
  values["next"] = quoted(first.text);
  values["probability"] = percent(first.probability);
  values["top"] = (first.top ?? []).slice(0, 3).map(({ text, probability }) => `${quoted(text)} ${percent(probability)}`).join(" · ");
  return values;
}

/**
 * A text of a step by its key in the locales: in the given language, else in English, else the API's. Null if there is
 * no text or a placeholder's value is unknown.
 */
export function stepText(step: Pick<TourStep, "id" | "name" | "text">, part: "title" | "text" | "values" | "empty" | "synthetic", values: Facts, language = currentLanguage()): string | null {
  const key = `${step.id}.${part}`;
  const fromApi = { title: step.name, text: step.text }[part as string] || undefined;
  const text = WORDS[language][key] ?? WORDS.en[key] ?? fromApi;
  return text === undefined ? null : fill(text, values);
}

/** The number of values a step computes: in its main block, and in all blocks of that kind. */
export function sizeNote(step: TourStep, { layout }: Figure): string | null {
  const { description } = layout;
  const [id] = description.blocksOf(step).computed;
  const row = id === undefined ? null : layout.row(id);
  if (row === null) return null;
  const kind = layout.kindAt(row);
  const { layers, blocks } = description.countOf(kind);
  const cells = layout.cellsOf(row).reduce((product, size) => product * size, 1);
  const heads = description.members(kind.group);
  return t(`tour.size.${kind.scope}`, { block: blockName(kind), n: number(cells), layers: number(layers), heads: number(heads), total: compact(cells * blocks) });
}

const PLACEHOLDER = /\{(\w+)\}/g;

/** Replaces {placeholders} by values; null if one is missing. */
export function fill(text: string, values: Facts): string | null {
  const missing = [...text.matchAll(PLACEHOLDER)].some(([, name = ""]) => !(name in values));
  return missing ? null : text.replace(PLACEHOLDER, (_, name: string) => values[name] ?? "");
}

const quoted = (text: string): string => (currentLanguage() === "zh-Hant" ? `「${text}」` : `“${text}”`);
const percent = (share: number): string => (share < 0.0005 ? "<\u00a00.1\u00a0%" : share > 0.9995 && share < 1 ? ">\u00a099.9\u00a0%" : `${number(100 * share, 1)}\u00a0%`);
