/** The colour panel: scale, palette, range, brightness and direction. */

import { cellValue, t } from "../i18n/text";
import { extentOf, rounded, type Extent } from "../reading/range";
import type { State } from "../state/state";
import type { Colour, View } from "../state/view";
import { button, choice, el, field, select } from "./dom";
import { ramp } from "./legend";
import type { App, Panel } from "./panel";

export const colours: Panel = {
  id: "colours",
  place: "aid",
  title: "colours",
  icon: "M12 3a9 9 0 1 0 0 18c2 0 1-3 2.5-4.2S21 16 21 12a9 9 0 0 0-9-9M7.5 12v.01M10 7.5v.01M15 7.5v.01",
  mount(root, app) {
    const { store } = app;
    const change = (part: Partial<Colour>): void => store.dispatch({ type: "view", change: { colour: { ...store.state.view.colour, ...part } } });
    const controls = el("div", { class: "stack" });
    const readout = el("div", { class: "stack" });
    root.append(controls, readout);
    store.subscribe(({ view }) => controlsKey(view.colour), () => controls.replaceChildren(...settings(app, change)));
    const update = (): void => readout.replaceChildren(facts(t("range.view"), inView(app)), selected(store.state) ?? "");
    for (const of of [({ view }: State) => view.camera, (state: State) => state.cellInfo?.at, ({ figures }: State) => figures]) store.subscribe<unknown>(of, update);
  },
};

/** When this changes, the controls are rebuilt: not while a slider moves or a number is typed. */
function controlsKey({ scale, palette, range }: Colour): string {
  return `${scale} ${palette} ${range === null}`;
}

function settings(app: App, change: (part: Partial<Colour>) => void): HTMLElement[] {
  const { view } = app.store.state;
  const { colour } = view;
  const scale = choice(t("scale"), [["linear", t("scale.linear")], ["log", t("scale.log")]], colour.scale, (value) => change({ scale: value as Colour["scale"] }));
  const palette = choice(t("palette"), [["classic", t("palette.classic")], ["safe", t("palette.safe")]], colour.palette, (value) => change({ palette: value as Colour["palette"] }));
  [...palette.querySelectorAll("label")].forEach((label, n) => label.append(ramps({ ...colour, palette: n === 0 ? "classic" : "safe" })));
  palette.classList.add("cards");
  const gain = el("input", { type: "range", min: -2, max: 3, step: 0.25, value: Math.log2(colour.gain), oninput: () => change({ gain: 2 ** Number(gain.value) }) });
  const flows = [["", t("flow.auto")], ["right", t("flow.right")], ["down", t("flow.down")]] as const;
  const flow = select(flows, view.flow ?? "", (value) => app.store.dispatch({ type: "show", change: { flow: (value || null) as View["flow"], camera: null } }));
  return [scale, palette, ...rangeControls(app, change), field(t("gain"), gain), field(t("flow"), flow)];
}

/** Controls of full brightness: per block, or one value for all blocks. */
function rangeControls(app: App, change: (part: Partial<Colour>) => void): HTMLElement[] {
  const { range: most } = app.store.state.view.colour;
  const fit = (): number => rounded(inView(app)?.absmax ?? 1);
  const how = choice(t("range"), [["own", t("range.own")], ["same", t("range.same")]], most === null ? "own" : "same", (value) => change({ range: value === "own" ? null : fit() }));
  if (most === null) return [how];
  const box = el("input", { type: "number", min: 0, step: "any", value: most, onchange: () => Number(box.value) > 0 && change({ range: Number(box.value) }) });
  const again = (): void => {
    box.value = String(fit());
    change({ range: fit() });
  };
  return [how, el("div", { class: "row" }, field(t("range.most"), box), button(t("range.fit"), again))];
}

function ramps(colour: Colour): HTMLElement {
  return el("span", { class: "ramps" }, ramp("weight", colour), ramp("value", colour));
}

/** The range of the layers in view. */
function inView({ stage, store }: App): Extent | null {
  const [main] = stage.models.shown;
  const tensors = store.state.figures[0]?.trace?.tensors;
  if (!main || !tensors) return null;
  const layers = new Set(main.blocks.slabs.filter((slab) => main.depths.get(slab)?.inView).map((slab) => slab.span.layer));
  return extentOf(tensors, layers);
}

/** The range of the current cell's tensor. */
function selected({ cellInfo, figures }: State): HTMLElement | null {
  if (!cellInfo) return null;
  const figure = figures[cellInfo.at.figure];
  const row = figure?.layout.row(cellInfo.at.block) ?? null;
  const name = !figure || row === null ? null : (figure.layout.place(row)?.name ?? null);
  const of = name === null ? undefined : figure?.trace?.tensors?.[name];
  return name !== null && of ? facts(name, { min: of.min ?? NaN, max: of.max ?? NaN, absmax: of.absmax ?? NaN }) : null;
}

function facts(title: string, extent: Extent | null): HTMLElement {
  if (!extent) return el("div");
  const rows = (["min", "max", "absmax"] as const).flatMap((key) => [el("dt", {}, t(`range.${key}`)), el("dd", {}, cellValue(extent[key]))]);
  return el("div", { class: "facts" }, el("h3", {}, title), el("dl", {}, ...rows));
}
