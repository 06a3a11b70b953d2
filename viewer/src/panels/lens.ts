/** The logit lens as a table: a row per layer, a column per position. */

import { isAbort } from "../api/client";
import type { Lens } from "../api/service";
import { reason } from "../i18n/reason";
import { percent, t } from "../i18n/text";
import { loadLens, blockAfter, windowOf } from "../reading/lens";
import { inputTokens, lastPosition, visible } from "../reading/tokens";
import { flyTo } from "../scene/fly";
import { channelsOf, inkOn } from "../scene/palette";
import type { Colour } from "../state/view";
import { button, el } from "./dom";
import type { App, Panel } from "./panel";

const WIDTH = 16; // positions at once
const TOP = 3;

export const lens: Panel = {
  id: "lens",
  place: "aid",
  title: "lens",
  icon: "M12 5C6 5 2.5 12 2.5 12S6 19 12 19s9.5-7 9.5-7S18 5 12 5M12 9a3 3 0 1 0 0 6a3 3 0 0 0 0-6",
  mount(root, app) {
    const { store, service } = app;
    let running = new AbortController();
    let start = 0;
    const bar = el("progress", { max: 1, hidden: true, "aria-label": t("progress") });
    const note = el("p", { class: "message", "aria-live": "polite" });
    const pager = el("div", { class: "row pager" });
    const table = el("table", { class: "lens-table" });
    const frame = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("lens") }, table);
    const reading = el("p", { class: "reading", "aria-live": "polite" });
    root.append(el("p", { class: "about" }, t("lens.what")), bar, note, pager, frame, reading);

    const load = async (at: number): Promise<void> => {
      running.abort();
      running = new AbortController();
      const { signal } = running;
      const figure = store.state.figures[0];
      const trace = figure?.trace;
      pager.hidden = reading.hidden = !trace;
      frame.hidden = !trace || !table.rows.length;
      note.textContent = figure && !trace ? t("needs.trace") : "";
      if (!trace) return;
      const tokens = inputTokens(trace);
      const part = windowOf(at, tokens.length, WIDTH);
      start = part.start;
      const show = (progress: { done: number; total: number } | null): void => {
        bar.hidden = false;
        note.textContent = t("computing");
        if (progress) Object.assign(bar, { value: progress.done, max: progress.total });
        else bar.removeAttribute("value");
      };
      const waiting = setTimeout(() => show(null), 400);
      try {
        const done = await loadLens(service, trace, { top: String(TOP), positions: `${part.start}:${part.stop}` }, show, signal);
        note.textContent = "";
        frame.hidden = false;
        fill(table, done, tokens.map(({ text }) => visible(text)), app, (text) => (reading.textContent = text));
        pager.replaceChildren(...pages(part, tokens.length, (to) => void load(to)));
        pager.hidden = tokens.length <= WIDTH;
        reading.textContent = t("lens.click");
      } catch (error) {
        if (isAbort(error) || signal.aborted) return;
        note.textContent = reason(error);
      } finally {
        clearTimeout(waiting);
        if (!signal.aborted) bar.hidden = true;
      }
    };
    store.subscribe(({ figures }) => figures[0]?.trace ?? figures[0]?.layout, () => {
      const trace = store.state.figures[0]?.trace;
      void load(trace ? lastPosition(trace, store.state.view.step) : 0);
    });
    store.subscribe(({ view }) => view.colour, () => frame.hidden || void load(start));
    store.onEnd(() => running.abort());
  },
};

function pages({ start, stop }: { start: number; stop: number }, count: number, go: (to: number) => void): HTMLElement[] {
  const back = button("‹", () => go(Math.max(0, start - WIDTH)), { "aria-label": t("lens.back"), disabled: start === 0 });
  const on = button("›", () => go(stop), { "aria-label": t("lens.on"), disabled: stop === count });
  return [back, el("span", {}, t("lens.part", { from: start, to: stop - 1, last: count - 1 })), on];
}

/** Fills the table: the first layer on top, tokens as column headers. */
function fill(table: HTMLTableElement, { layers = [] }: Lens, tokens: string[], app: App, show: (text: string) => void): void {
  const [first] = layers;
  const head = el("tr", {}, el("td"), ...(first?.predictions ?? []).map(({ position }) => el("th", { scope: "col", title: String(position) }, tokens[position])));
  const rows = layers.map(({ layer, predictions }) => {
    const name = layer === 0 ? t("lens.start") : t("lens.after", { n: layer - 1 });
    const cells = predictions.map(({ position, top }) => {
      const description = `${name} · ${position} “${tokens[position]}”: ${top.map(({ text, probability }) => `“${visible(text)}” ${percent(probability)}`).join(", ")}`;
      const [best] = top;
      return el("td", {}, best ? prediction(visible(best.text), best.probability, description, app, layer, show) : null);
    });
    return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
  });
  table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
}

function prediction(text: string, probability: number, description: string, app: App, layers: number, show: (text: string) => void): HTMLElement {
  const colour: Colour = { ...app.store.state.view.colour, scale: "linear", gain: 1 };
  const channels = channelsOf(probability, "value", colour);
  const fly = (): void => {
    const layout = app.store.state.figures[0]?.layout;
    const block = layout && blockAfter(layout, layers);
    if (block) flyTo(app, [block]);
  };
  const made = button(text, fly, { class: `predicted on-${inkOn(channels)}`, "aria-label": description, onpointerenter: () => show(description), onfocus: () => show(description) });
  made.style.backgroundColor = `rgb(${channels.join()})`;
  return made;
}
