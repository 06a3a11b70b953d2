/** The search dialog for blocks. */

import { item } from "../checked/item";
import { blockName } from "../i18n/names";
import { number, t } from "../i18n/text";
import { find, type Found, type Hit } from "../reading/search";
import { flyTo } from "../scene/fly";
import { refText } from "../state/address";
import type { Figure } from "../state/state";
import { onKey } from "./keys";
import { button, dialog, el, icon } from "./dom";
import type { Panel } from "./panel";

const LENS = "M10 4a6 6 0 1 0 0 12a6 6 0 0 0 0-12M14.5 14.5L20 20";

export const search: Panel = {
  id: "search",
  place: "bar",
  title: "search",
  mount(root, app) {
    const { store } = app;
    const status = el("p", { class: "message", "aria-live": "polite" });
    const list = el("ul", { class: "results", role: "listbox", id: "found", "aria-label": t("search") });
    const box = el("input", {
      type: "text", role: "combobox", "aria-controls": "found", "aria-expanded": "true", "aria-autocomplete": "list",
      "aria-label": t("search"), placeholder: t("search.hint"), autocomplete: "off", spellcheck: "false",
      oninput: () => look(), onkeydown: (event) => press(event as KeyboardEvent),
    });
    const pane = dialog(t("search"), box, list, status);
    pane.classList.add("search-pane");
    const open = button("", () => show(), { class: "search-open", "aria-label": t("search"), "aria-keyshortcuts": "/" });
    open.append(icon(LENS), el("span", {}, t("search")), el("kbd", { "aria-hidden": "true" }, "/"));
    const home = button("⌂", () => store.dispatch({ type: "camera", to: null }), { title: t("all"), "aria-label": t("all"), class: "quiet" });
    root.append(open, home, pane);

    let found: Found = { hits: [], total: 0 };
    let chosen = 0;
    const show = (): void => {
      if (!store.state.figures.length || pane.open) return;
      pane.showModal();
      box.select();
      look();
    };
    const look = (): void => {
      const { figures } = store.state;
      found = find(figures.map((figure) => ({ layout: figure.layout, name: nameOf(figure) })), box.value, blockName);
      chosen = 0;
      list.replaceChildren(...found.hits.map((hit, n) => option(figures, hit, n, () => go(n))));
      mark();
      const [all, shown] = [figures.reduce((sum, { layout }) => sum + layout.count, 0), found.hits.length];
      status.textContent = !box.value.trim()
        ? t("search.all", { n: number(all) })
        : found.total > shown ? t("search.some", { n: number(found.total), shown }) : t("search.found", { n: number(found.total) });
    };
    const mark = (): void => {
      [...list.children].forEach((entry, n) => entry.setAttribute("aria-selected", String(n === chosen)));
      list.children[chosen]?.scrollIntoView({ block: "nearest" });
      if (found.hits.length) box.setAttribute("aria-activedescendant", `found-${chosen}`);
      else box.removeAttribute("aria-activedescendant");
    };
    const press = (event: KeyboardEvent): void => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
      if (event.key === "Enter") go(chosen);
      else if (by && found.hits.length) {
        chosen = Math.abs(by) === 1 ? (chosen + by + found.hits.length) % found.hits.length : Math.max(0, Math.min(chosen + by, found.hits.length - 1));
        mark();
      } else return;
      event.preventDefault();
    };
    const go = (n: number): void => {
      const hit = found.hits[n];
      const layout = hit && store.state.figures[hit.figure]?.layout;
      if (!layout) return;
      pane.close();
      const id = layout.id(hit.row);
      store.dispatch({ type: "highlight", highlight: { figure: hit.figure, blocks: [id], cells: [], dim: true, reveal: 1 } });
      flyTo(app, [id], undefined, hit.figure);
      app.stage.canvas.focus({ preventScroll: true });
    };
    onKey(store, "/", show);
  },
};

function nameOf({ model, ref }: Figure): string {
  return model?.name ?? refText(ref);
}

function option(figures: readonly Figure[], { figure, row }: Hit, n: number, choose: () => void): HTMLElement {
  const shown = item(figures, figure);
  const { layout } = shown;
  const kind = layout.kindAt(row);
  const [layer, head] = [item(layout.layer, row), item(layout.head, row)];
  const place = [figures.length > 1 && nameOf(shown), layer >= 0 && t("layer", { n: layer }), head >= 0 && t("head.n", { n: head })].filter(Boolean).join(" · ");
  return el("li", { role: "option", id: `found-${n}`, onclick: choose },
    el("span", { class: `swatch ${kind.role}`, "aria-hidden": "true" }),
    el("b", {}, blockName(kind)), el("span", {}, place), el("code", {}, layout.id(row)));
}
