/** The current cell: its value, how it is computed, and links to the cells that it was computed from. */

import type { Explanation } from "../api/service";
import { item } from "../checked/item";
import { blockName as nameOf } from "../i18n/names";
import { cellValue, maybe, number, t, used } from "../i18n/text";
import type { Layout } from "../layout/layout";
import { locate } from "../layout/place";
import { inWords, partsOf } from "../reading/formula";
import { fedOf, visible } from "../reading/tokens";
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
  const text = cellInfo.value !== undefined ? cellValue(cellInfo.value) : canBeKnown(state, cellInfo.at) ? "…" : "";
  return [
    head,
    place,
    ...(text ? [el("output", { class: "value" }, text)] : []),
    ...whatItIs(state, cellInfo).map((line) => el("p", { class: "formula" }, line)),
    ...(message ? [el("p", { class: "wrong" }, message)] : []),
    ...(explanation ? [howItCame(state, cellInfo, explanation)] : []),
    ...(explanation && pinned ? operands(cellInfo, store) : explanation?.operands.length ? [el("small", {}, t("click"))] : []),
    ...(pinned ? [el("small", { class: "hint-keys" }, t("cell.keys"))] : []),
  ];
}

/** How a cell was computed: in words, and below them the equation, each of its sides in a line. */
function howItCame(state: State, cellInfo: CellInfo, explanation: Explanation): HTMLElement {
  const { sentence, sides } = partsOf(explanation.formula.text);
  const words = used() === "en" ? sentence : inOtherWords(state, cellInfo);
  return el("p", { class: "formula" }, `${words} `, ...sides.map((side) => el("span", { class: "side" }, `${side} `)));
}

/** The sentence that the server has in English. */
function inOtherWords({ figures }: State, { at, formula }: CellInfo): string {
  const figure = figures[at.figure];
  if (!figure) return "";
  const { layout, trace } = figure;
  const [i, j] = at.cell;
  if (!formula) return t("cell.weight.own");
  if (formula.mask === "causal" && i > j) return t("how.masked", { i: number(i), j: number(j) });
  if (formula.op === "input") return t("how.token", { token: t("quoted", { text: trace ? visible(fedOf(trace)[i]?.text ?? "") : "" }) });
  return inWords(formula, (block) => nameFrom(figure, block, layerOf(layout, at.block)));
}

/** For a cell without a trace: where a weight comes from, or how such cells are computed. */
function whatItIs({ figures }: State, { at, explanation, formula }: CellInfo): string[] {
  const figure = figures[at.figure];
  const row = figure?.layout.row(at.block) ?? null;
  if (!figure || row === null || explanation || figure.trace) return [];
  const { layout, model } = figure;
  const place = layout.place(row);
  if (layout.kindAt(row).role === "weight" && place) {
    const of = `${place.name}[${locate(place.index, at.cell).join(", ")}]`;
    return [t("cell.weight", { of }), maybe(`weights.${model?.weights.source ?? "synthetic"}`, "")];
  }
  const words = formula && inWords(formula, (block) => nameFrom(figure, block, layerOf(layout, at.block)));
  return [...(words ? [words] : []), t("cell.unrun")];
}

/** The layer that a block is in; -1 for one of none. */
function layerOf(layout: Layout, block: string): number {
  const row = layout.row(block);
  return row === null ? -1 : item(layout.layer, row);
}

/** What a block is called; one of another layer by that as well. */
function nameFrom({ layout }: Figure, block: string, layer: number): string {
  const row = layout.row(block);
  if (row === null) return block;
  const [name, own] = [nameOf(layout.kindAt(row)), layerOf(layout, block)];
  return own === layer || own < 0 || layer < 0 ? name : `${name}, ${t("layer", { n: own })}`;
}

/** Whether the service has its value. */
function canBeKnown({ figures }: State, { figure, block }: CellAt): boolean {
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
