/** The attention panel: small maps of a layer's heads, and a large map of one. */

import { isAbort } from "../api/client";
import type { Trace } from "../api/service";
import { item } from "../checked/item";
import { reason } from "../i18n/reason";
import { number, percent, progressText, t } from "../i18n/text";
import type { Layout } from "../layout/layout";
import { cellOfPattern, isMasked, readHead, readHeads, type Map2D } from "../reading/attention";
import { loadLens, rolloutOf, rolloutQuery } from "../reading/lens";
import { inputTokens, visible } from "../reading/tokens";
import { flyTo } from "../scene/fly";
import type { Figure } from "../state/state";
import { button, el, field, select } from "./dom";
import { Heatmap, painted, type At } from "./heatmap";
import type { App, Panel } from "./panel";

const ROLLOUT = -1; // instead of a layer
const TABLE_LIMIT = 24; // positions up to which screen readers get the map as a table

export const attention: Panel = {
  id: "attention",
  place: "aid",
  title: "attention",
  icon: "M4 4h16v16H4zM4 12h16M12 4v16M4 8h8M8 4v8",
  mount(root, app) {
    const { store, service } = app;
    let running = new AbortController();
    let maps: Map2D[] = [];
    let headsOf = ""; // the trace and layer of the small maps
    let shown: Map2D | null = null;
    const head = el("div", { class: "row" });
    const heads: HTMLElement = el("div", { class: "heads", role: "radiogroup", "aria-label": t("heads"), onkeydown: (event) => moveFocus(app, heads, event as KeyboardEvent) });
    const map = new Heatmap({ over: (place) => show(place), pick: (place) => pick(place) });
    const value = el("p", { class: "reading", "aria-live": "polite" });
    const show3d = button(t("show.3d"), () => flyTo(app, [blockOf(app)].filter((id) => id !== null)));
    const table = el("div", { class: "attention-table" });
    const note = el("p", { class: "message", "aria-live": "polite" });
    const content = el("div", { class: "stack" }, head, heads, map.canvas, el("div", { class: "row reading-row" }, value, show3d), table);
    root.append(content, note);

    const load = async (): Promise<void> => {
      running.abort();
      running = new AbortController();
      const { signal } = running;
      const figure = store.state.figures[0];
      content.hidden = !figure?.trace;
      note.textContent = figure && !figure.trace ? t("needs.trace") : "";
      if (!figure?.trace) return;
      const [layer] = chosen(app);
      head.replaceChildren(layerPicker(app, figure, layer));
      heads.hidden = show3d.hidden = layer === ROLLOUT;
      try {
        const key = `${figure.trace.id} ${layer}`;
        if (layer !== ROLLOUT && key !== headsOf) {
          maps = await readHeads(service, figure, layer, signal);
          heads.replaceChildren(...maps.map((one, n) => thumbnail(app, one, n)));
          headsOf = key;
        }
        markChosen(heads, chosen(app)[1]);
        shown = await (layer === ROLLOUT ? rollout(app, figure.trace, (text) => (note.textContent = text), signal) : readHead(service, figure, ...chosen(app), signal));
        draw(shown, figure.trace);
      } catch (error) {
        if (!isAbort(error)) note.textContent = reason(error);
      }
    };
    const draw = (large: Map2D, trace: Trace): void => {
      const texts = inputTokens(trace).map(({ text }) => visible(text));
      map.show(large, texts, store.state.view.colour);
      table.replaceChildren(texts.length <= TABLE_LIMIT ? tableOf(large, texts) : el("p", {}, t("attention.keys")));
      show(null);
    };
    const show = (place: At | null): void => {
      const trace = store.state.figures[0]?.trace;
      const texts = trace ? inputTokens(trace).map(({ text }) => visible(text)) : [];
      value.textContent = place && shown ? sentence(shown, place, texts) : t(chosen(app)[0] === ROLLOUT ? "rollout.what" : "attention.what");
    };
    const pick = ({ query, key }: At): void => {
      const [layer, n] = chosen(app);
      const [figure] = store.state.figures;
      if (layer === ROLLOUT || !shown || !figure) return;
      const cell = cellOfPattern(figure, layer, n, query * shown.factors[1], key * shown.factors[0]);
      if (!cell) return;
      store.dispatch({ type: "pin", at: cell });
      flyTo(app, [cell.block]);
    };
    store.subscribe(({ figures }) => figures[0]?.trace ?? figures[0]?.layout, () => void load());
    store.subscribe(() => chosen(app).join(), () => void load());
    store.subscribe(({ view }) => view.colour, () => {
      [...heads.querySelectorAll("canvas")].forEach((old, n) => old.replaceWith(painted(item(maps, n), store.state.view.colour)));
      const trace = store.state.figures[0]?.trace;
      if (shown && trace) draw(shown, trace);
    });
    store.onEnd(() => running.abort());
  },
};

/** The selected layer and head, within the model's sizes. */
function chosen({ store }: App): [number, number] {
  const { view, figures } = store.state;
  const layout = figures[0]?.layout;
  const [layer, head] = view.head ?? [0, 0];
  return layout ? [Math.min(layer, layersOf(layout) - 1), Math.min(head, layout.description.heads - 1)] : [0, 0];
}

/** The layers that have attention. */
function layersOf({ description }: Layout): number {
  return description.layers(description.part("pattern")?.stack);
}

function blockOf(app: App): string | null {
  return app.store.state.figures[0]?.layout.blockOf("pattern", ...chosen(app)) ?? null;
}

function layerPicker(app: App, { layout }: Figure, layer: number): HTMLElement {
  const chooseLayer = (text: string): void => app.store.dispatch({ type: "view", change: { head: [Number(text), chosen(app)[1]] } });
  const layers = Array.from({ length: layersOf(layout) }, (_, n): [string, string] => [String(n), t("layer", { n })]);
  return field(t("attention.of"), select([...layers, [String(ROLLOUT), t("rollout")]], String(layer), chooseLayer));
}

function thumbnail(app: App, map: Map2D, n: number): HTMLElement {
  const made = button("", () => choose(app, n), { role: "radio", class: "head", "aria-label": t("head.n", { n }) });
  made.append(painted(map, app.store.state.view.colour), el("small", {}, String(n)));
  return made;
}

function choose(app: App, head: number): void {
  app.store.dispatch({ type: "view", change: { head: [chosen(app)[0], head] } });
}

/** Only the chosen head is a tab stop; arrow keys move between heads. */
function markChosen(heads: HTMLElement, current: number): void {
  [...heads.children].forEach((head, n) => {
    head.setAttribute("aria-checked", String(n === current));
    head.setAttribute("tabindex", n === current ? "0" : "-1");
  });
}

function moveFocus(app: App, heads: HTMLElement, event: KeyboardEvent): void {
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const count = heads.children.length;
  const to = (chosen(app)[1] + by + count) % count;
  choose(app, to);
  (heads.children[to] as HTMLElement).focus();
}

async function rollout({ service }: App, trace: Trace, show: (text: string) => void, signal: AbortSignal): Promise<Map2D> {
  const count = inputTokens(trace).length;
  show(t("computing"));
  const lens = await loadLens(service, trace, rolloutQuery(count), (progress) => show(progress ? progressText(progress) : t("computing")), signal);
  show("");
  return { values: rolloutOf(lens, count), width: count, height: count, factors: [1, 1] };
}

/** "B (2) attends to C (0): 16.7 %". A cell of several positions has their largest weight. */
function sentence(map: Map2D, { query, key }: At, texts: string[]): string {
  const { values, width, factors } = map;
  const share = item(values, query * width + key);
  const name = (n: number, factor: number): string => {
    const [from, to] = [n * factor, Math.min((n + 1) * factor, texts.length) - 1];
    return from === to ? `“${texts[from] ?? ""}” (${number(from)})` : `${number(from)}–${number(to)}`;
  };
  const names = { query: name(query, factors[1]), key: name(key, factors[0]) };
  return isMasked(map, query, key) ? t("attention.future", names) : t("attention.reads", { ...names, share: percent(share, 2) });
}

function tableOf({ values, width, height }: Map2D, texts: string[]): HTMLTableElement {
  const rows = Array.from({ length: height }, (_, query) =>
    el("tr", {}, el("th", { scope: "row" }, texts[query] ?? ""), ...Array.from({ length: width }, (__, key) => el("td", {}, percent(item(values, query * width + key))))),
  );
  return el("table", {}, el("caption", {}, t("attention.map")), el("tr", {}, el("td"), ...texts.map((text) => el("th", { scope: "col" }, text))), ...rows);
}
