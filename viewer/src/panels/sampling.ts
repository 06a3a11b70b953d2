/** The sampling panel: softmax(logits / T), for any position and temperature. */

import { isAbort } from "../api/client";
import type { Trace } from "../api/service";
import { reason } from "../i18n/reason";
import { number, percent, t } from "../i18n/text";
import type { Figure } from "../state/state";
import { present } from "../checked/item";
import { entropy, softmax, top, type Likely } from "../reading/distribution";
import { loadLens } from "../reading/lens";
import { inputTokens, lastPosition, visible } from "../reading/tokens";
import { channelsOf } from "../scene/palette";
import { button, el, field } from "./dom";
import type { App, Panel } from "./panel";

const BARS = 12;
const TOP = 20; // tokens whose texts are read from the lens

export const sampling: Panel = {
  id: "sampling",
  place: "aid",
  title: "sampling",
  icon: "M4 20V10M9 20V4M14 20v-7M19 20v-4M2 20h20",
  mount(root, app) {
    const { store, service } = app;
    let running = new AbortController();
    let logits: Float32Array = new Float32Array();
    let texts = new Map<number, string>();
    const { generate } = store.state.view;
    const temperature = el("input", { type: "range", min: 0, max: 5, step: 0.05, value: generate.temperature || 1, id: "temperature", oninput: () => draw() });
    const degreeText = el("span", { class: "big" });
    const where = el("input", { type: "range", min: 0, value: 0, oninput: () => void load(Number(where.value)) });
    const at = el("p", { class: "context" });
    const bars = el("ul", { class: "bars" });
    const facts = el("p", { class: "message", "aria-live": "polite" });
    const go = button(t("sampling.run"), () => sample(app, Number(temperature.value)), { class: "primary" });
    const content = el("div", { class: "stack" }, field(t("sampling.position"), where), at, field(t("temperature"), el("div", { class: "row slider" }, temperature, degreeText)), bars, facts, go);
    const note = el("p", { class: "message", "aria-live": "polite" });
    root.append(content, note);

    const draw = (): void => {
      const degree = Number(temperature.value);
      degreeText.textContent = degree === 0 ? `0 · ${t("greedy")}` : number(degree, 2);
      if (!logits.length) return;
      const all = softmax(logits, degree);
      const best = top(all, BARS);
      const rest = 1 - best.reduce((sum, { probability }) => sum + probability, 0);
      const unit = (best[0]?.probability ?? 1) ** -0.75; // so that bars are visible even if no token is probable
      bars.replaceChildren(...best.map((one) => bar(app, one, unit, textOf(one.token))), ...(all.length > BARS ? [others(rest, unit, all.length - best.length)] : []));
      const bits = entropy(all);
      facts.textContent = t("sampling.entropy", { bits: number(bits, 2), choices: number(2 ** bits, 1) });
    };
    const textOf = (token: number): string => visible(texts.get(token) ?? `#${token}`);
    const load = async (position: number): Promise<void> => {
      running.abort();
      running = new AbortController();
      const { signal } = running;
      const figure = store.state.figures[0];
      const trace = figure?.trace;
      content.hidden = !trace;
      note.textContent = figure && !trace ? t("needs.trace") : "";
      if (!figure || !trace) return;
      const fed = inputTokens(trace);
      Object.assign(where, { max: String(fed.length - 1), value: String(position) });
      at.replaceChildren(...context(fed.map(({ text }) => visible(text)), position));
      try {
        const tensor = present(figure.layout.description.part("logits")?.tensor, "the tensor of the logits");
        const known = knownTexts(figure.model?.vocabulary.tokens, trace, position);
        ({ values: logits } = await service.values(`/v1/traces/${trace.id}`, tensor, { slice: `0,${position}` }, signal));
        texts = known ?? new Map();
        draw();
        if (known) return;
        texts = await textsFromLens(app, figure, trace, position, signal);
        draw();
      } catch (error) {
        if (!isAbort(error)) note.textContent = reason(error);
      }
    };
    const newest = (): void => {
      const trace = store.state.figures[0]?.trace;
      void load(trace ? lastPosition(trace, store.state.view.step) : 0);
    };
    store.subscribe(({ figures }) => figures[0]?.trace ?? figures[0]?.layout, newest);
    store.subscribe(({ view }) => view.step, newest);
    store.subscribe(({ view }) => view.colour, draw);
    store.onEnd(() => running.abort());
  },
};

/** The last tokens up to a position, and a placeholder for the next one. */
function context(texts: string[], position: number): HTMLElement[] {
  const from = Math.max(0, position - 11);
  const before = from > 0 ? [el("span", {}, "…")] : [];
  const tokens = texts.slice(from, position + 1).map((text) => el("span", { class: "token" }, text));
  return [...before, ...tokens, el("span", { class: "token next" }, "?")];
}

/** The texts of the most probable tokens here, if they are loaded. */
function knownTexts(letters: string[] | null | undefined, trace: Trace, position: number): Map<number, string> | null {
  if (letters) return new Map(letters.map((text, token) => [token, text]));
  const step = trace.generated?.find((one) => one.position === position);
  return step && step.top.length >= BARS ? new Map(step.top.map(({ token, text }) => [token, text])) : null;
}

/** The texts of the most probable tokens from the lens; their order is the same at every temperature. */
async function textsFromLens({ service }: App, { layout }: Figure, trace: Trace, position: number, signal: AbortSignal): Promise<Map<number, string>> {
  const end = layout.description.layers(layout.description.part("resid")?.stack); // after all layers
  const query = { top: String(TOP), layers: `${end}:${end + 1}`, positions: `${position}:${position + 1}` };
  const lens = await loadLens(service, trace, query, () => {}, signal);
  return new Map(lens.layers?.[0]?.predictions[0]?.top.map(({ token, text }) => [token, text]));
}

function bar({ store }: App, { probability }: Likely, unit: number, text: string): HTMLElement {
  const colour = { ...store.state.view.colour, scale: "linear" as const, gain: 1 };
  const fill = el("i", { class: "fill", "aria-hidden": "true" });
  fill.style.width = `${Math.min(100 * probability * unit, 100)}%`;
  fill.style.backgroundColor = `rgb(${channelsOf(0.35 + 0.65 * probability, "value", colour).join()})`;
  return el("li", {}, el("code", {}, text), el("span", { class: "track" }, fill), el("b", {}, percent(Math.max(probability, 0), 2)));
}

function others(probability: number, unit: number, count: number): HTMLElement {
  const fill = el("i", { class: "fill rest", "aria-hidden": "true" });
  fill.style.width = `${Math.min(100 * probability * unit, 100)}%`;
  return el("li", { class: "rest" }, el("code", {}, t("sampling.others", { n: number(count) })), el("span", { class: "track" }, fill), el("b", {}, percent(Math.max(probability, 0), 2)));
}

/** Runs the model again at this temperature. */
function sample({ store }: App, temperature: number): void {
  const { generate } = store.state.view;
  const seed = temperature > 0 && temperature === generate.temperature ? generate.seed + 1 : generate.seed; // other tokens each time
  store.dispatch({ type: "show", change: { generate: { ...generate, temperature, seed, max_new_tokens: Math.max(generate.max_new_tokens, 1) }, traced: true } });
}
