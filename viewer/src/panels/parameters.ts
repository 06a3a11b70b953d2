/** The parameters panel: counts by part, sizes and memory. */

import { bytes, compact, textOr, number, percent, t } from "../i18n/text";
import { cachePerToken, partsOf, totalOf, type Part } from "../reading/parameters";
import type { Figure, State } from "../state/state";
import { el } from "./dom";
import type { Panel } from "./panel";

export const parameters: Panel = {
  id: "parameters",
  place: "aid",
  title: "parameters.title",
  icon: "M4 6h10M4 12h16M4 18h6",
  mount(root, { store }) {
    const show = (): void => {
      const [figure] = store.state.figures;
      root.replaceChildren(...(figure ? contents(figure) : []));
    };
    store.subscribe(({ figures }: State) => figures[0], show);
  },
};

function contents(figure: Figure): HTMLElement[] {
  const parts = partsOf(figure.layout, figure.model);
  const total = totalOf(parts);
  const weights = figure.model?.weights;
  return [
    el("p", { class: "total" }, el("b", {}, compact(total)), el("span", {}, t("parameters", { n: number(total) }))),
    el("table", { class: "parts" }, el("tbody", {}, ...parts.map((part) => row(part, parts[0]?.share ?? 1)))),
    facts(figure, total),
    el("p", { class: "about" }, `${textOr(`weights.${weights?.source ?? "synthetic"}`, "")} ${figure.model ? textOr(`note.${figure.model.id}`, figure.model.note ?? "") : ""}`),
  ];
}

function row({ name, count, share, tied }: Part, largest: number): HTMLElement {
  const fill = el("i", { class: "fill", "aria-hidden": "true" });
  fill.style.width = `${(100 * share) / largest}%`;
  const label = textOr(`part.${name}`, name);
  return el("tr", { class: tied ? "tied" : null },
    el("th", { scope: "row" }, label, el("span", { class: "track" }, fill)),
    el("td", { title: number(count) }, compact(count)),
    el("td", {}, tied ? t("part.tied") : percent(share)));
}

function facts({ layout, trace }: Figure, total: number): HTMLElement {
  const { description, facts: { tokens } } = layout;
  const traced = Object.values(trace?.tensors ?? {}).reduce((sum, one) => sum + one.bytes, 0);
  const optional = (name: string, size: number): [string, string][] => (size > 0 ? [[name, number(size)]] : []); // not all models have these
  const rows: [string, string][] = [
    [t("size.layers"), number(description.layers())],
    [t("size.heads"), `${number(description.heads)} × ${number(layout.widthOf("query"))}`],
    ...optional(t("size.width"), layout.widthOf("embedding")),
    ...optional(t("size.inner"), layout.widthOf("mlp")),
    ...optional(t("size.vocabulary"), layout.widthOf("logits")),
    [t("size.context"), t("size.tokens", { n: number(description.context) })],
    [t("size.float32"), bytes(4 * total)],
    [t("size.float16"), bytes(2 * total)],
    [t("size.cache"), bytes(cachePerToken(layout))],
    ...(trace ? [[t("size.trace", { n: number(tokens ?? 0) }), bytes(traced)] as [string, string]] : []),
  ];
  return el("dl", { class: "sizes" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
