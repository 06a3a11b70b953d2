/** The card of the current cell: value, explanation, operands. */

import type { Explanation } from "../api/service";
import { item } from "../checked/item";
import { blockName as nameOf } from "../i18n/names";
import { cellValue, textOr, number, t, currentLanguage } from "../i18n/text";
import type { Layout } from "../layout/layout";
import { locate } from "../layout/place";
import { inWords, masks, partsOf } from "../reading/formula";
import { inputTokens, visible } from "../reading/tokens";
import { sourceOf, type Figure, type State, type CellInfo } from "../state/state";
import type { Readable } from "../state/store";
import type { CellAt } from "../state/view";
import { button, el } from "./dom";
import type { Panel } from "./panel";

export const cell: Panel = {
  id: "cell",
  place: "over",
  title: "cell",
  mount(root, { store }) {
    const card = el("div", { class: "card", hidden: true, "aria-live": "polite" });
    root.append(card);
    const show = (): void => {
      const { cellInfo } = store.state;
      card.hidden = cellInfo === null;
      if (cellInfo) card.replaceChildren(...parts(cellInfo, store));
    };
    store.subscribe((state) => state.cellInfo, show);
    store.subscribe(({ view }) => view.pinned, show);
  },
};

function parts(cellInfo: CellInfo, store: Readable): (HTMLElement | string)[] {
  const { state } = store;
  const pinned = state.view.pinned.length;
  const head = el("div", { class: "card-head" }, el("strong", {}, blockName(state, cellInfo.at)));
  if (pinned > 1) head.append(button(t("back"), () => store.dispatch({ type: "back" })));
  if (pinned) head.append(button("×", () => store.dispatch({ type: "clear" }), { "aria-label": t("close"), class: "quiet" }));
  const place = el("code", { class: "place" }, `${cellInfo.at.block} [${cellInfo.at.cell.join(", ")}]`);
  const { explanation, message } = cellInfo;
  const text = cellInfo.value !== undefined ? cellValue(cellInfo.value) : hasValue(state, cellInfo.at) ? "…" : "";
  return [
    head,
    place,
    ...(text ? [el("output", { class: "value" }, text)] : []),
    ...untraced(state, cellInfo).map((line) => el("p", { class: "formula" }, line)),
    ...(message ? [el("p", { class: "error" }, message)] : []),
    ...(explanation ? [explanationOf(state, cellInfo, explanation)] : []),
    ...(explanation && pinned ? operands(cellInfo, store) : explanation?.operands.length ? [el("small", {}, t("click"))] : []),
    ...(pinned ? [el("small", { class: "hint-keys" }, t("cell.keys"))] : []),
  ];
}

/** How a cell was computed: a sentence, and the equation with one line per side. */
function explanationOf(state: State, cellInfo: CellInfo, explanation: Explanation): HTMLElement {
  const { sentence, sides } = partsOf(explanation.formula.text);
  const words = currentLanguage() === "en" ? sentence : translated(state, cellInfo);
  return el("p", { class: "formula" }, `${words} `, ...sides.map((side) => el("span", { class: "side" }, `${side} `)));
}

/** The sentence of an explanation, which the API has in English only, in the current language. */
function translated({ figures }: State, { at, formula }: CellInfo): string {
  const figure = figures[at.figure];
  if (!figure) return "";
  const { layout, trace } = figure;
  const [i, j] = at.cell;
  if (!formula) return t("cell.weight.own");
  if (masks(formula, at.cell)) return t(i > j ? "how.masked" : "how.masked.window", { i: number(i), j: number(j), window: number(formula.window ?? 0) });
  if (formula.op === "input") return t("how.token", { token: t("quoted", { text: trace ? visible(inputTokens(trace)[i]?.text ?? "") : "" }) });
  return inWords(formula, (block) => nameFrom(figure, block, layerOf(layout, at.block)));
}

/** Lines for a cell without a trace: the source of a weight, or how the cell would be computed. */
function untraced({ figures }: State, { at, explanation, formula }: CellInfo): string[] {
  const figure = figures[at.figure];
  const row = figure?.layout.row(at.block) ?? null;
  if (!figure || row === null || explanation || figure.trace) return [];
  const { layout, model } = figure;
  const place = layout.place(row);
  if (layout.kindAt(row).role === "weight" && place) {
    const of = `${place.name}[${locate(place.index, at.cell).join(", ")}]`;
    return [t("cell.weight", { of }), textOr(`weights.${model?.weights.source ?? "synthetic"}`, "")];
  }
  const words = formula && inWords(formula, (block) => nameFrom(figure, block, layerOf(layout, at.block)));
  return [...(words ? [words] : []), t("cell.unrun")];
}

/** The layer of a block; -1 for none. */
function layerOf(layout: Layout, block: string): number {
  const row = layout.row(block);
  return row === null ? -1 : item(layout.layer, row);
}

/** A block's name, with its layer if that is not `layer`. */
function nameFrom({ layout }: Figure, block: string, layer: number): string {
  const row = layout.row(block);
  if (row === null) return block;
  const [name, own] = [nameOf(layout.kindAt(row)), layerOf(layout, block)];
  return own === layer || own < 0 || layer < 0 ? name : `${name}, ${t("layer", { n: own })}`;
}

/** Whether the API has a cell's value. */
function hasValue({ figures }: State, { figure, block }: CellAt): boolean {
  const of = figures[figure];
  const row = of?.layout.row(block) ?? null;
  return of !== undefined && row !== null && (of.trace !== null || sourceOf(of, row) !== null);
}

function operands({ at, explanation }: CellInfo, store: Readable): HTMLElement[] {
  const { state } = store;
  const { operands: list = [], total = 0 } = explanation ?? {};
  const figure = state.figures[at.figure];
  if (!list.length || !figure) return [];
  const own = layerOf(figure.layout, at.block);
  const rows = list.slice(0, 24).map(({ block, cell: place, value }) => {
    const to: CellAt = { figure: at.figure, block, cell: place as CellAt["cell"] };
    const follow = button("", () => store.dispatch({ type: "follow", at: to }), { class: "operand" });
    follow.title = block;
    follow.append(el("span", {}, `${nameFrom(figure, block, own)} [${place.slice(0, 2).join(", ")}]`), el("b", {}, cellValue(value)));
    return el("li", {}, follow);
  });
  return [el("small", {}, t("operands", { n: number(total), shown: rows.length })), el("ul", { class: "operands" }, ...rows)];
}

function blockName({ figures }: State, { figure, block }: CellAt): string {
  const layout = figures[figure]?.layout;
  const row = layout?.row(block) ?? null;
  return !layout || row === null ? block : nameOf(layout.kindAt(row));
}
