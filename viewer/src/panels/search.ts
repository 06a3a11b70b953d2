/** Search by name, over all blocks of the model: what is typed narrows the list, Enter flies there. */

import { blockName } from "../i18n/names";
import { number, t } from "../i18n/text";
import { find, type Found } from "../reading/search";
import { flyTo } from "../scene/fly";
import { onKey } from "./keys";
import { button, dialog, el, icon } from "./dom";
import type { App, Panel } from "./panel";

const LENS = "M10 4a6 6 0 1 0 0 12a6 6 0 0 0 0-12M14.5 14.5L20 20";

export const search: Panel = {
  id: "search",
  place: "bar",
  title: "search",
  mount(root, app) {
    const { store } = app;
    const said = el("p", { class: "said", "aria-live": "polite" });
    const list = el("ul", { class: "results", role: "listbox", id: "found", "aria-label": t("search") });
    const box = el("input", {
      type: "text", role: "combobox", "aria-controls": "found", "aria-expanded": "true", "aria-autocomplete": "list",
      "aria-label": t("search"), placeholder: t("search.hint"), autocomplete: "off", spellcheck: "false",
      oninput: () => look(), onkeydown: (event) => press(event as KeyboardEvent),
    });
    const pane = dialog(t("search"), box, list, said);
    pane.classList.add("search-pane");
    const open = button("", () => show(), { class: "search-open", "aria-label": t("search"), "aria-keyshortcuts": "/" });
    open.append(icon(LENS), el("span", {}, t("search")), el("kbd", { "aria-hidden": "true" }, "/"));
    const home = button("⌂", () => store.dispatch({ type: "camera", to: null }), { title: t("all"), "aria-label": t("all"), class: "quiet" });
    root.append(open, home, pane);

    let found: Found = { rows: [], total: 0 };
    let at = 0;
    const show = (): void => {
      if (!store.state.figures.length || pane.open) return;
      pane.showModal();
      box.select();
      look();
    };
    const look = (): void => {
      const layout = store.state.figures[0]?.layout;
      found = layout ? find(layout, box.value, blockName) : found;
      at = 0;
      list.replaceChildren(...found.rows.map((row, n) => option(app, row, n, () => go(n))));
      mark();
      said.textContent = !box.value.trim()
        ? t("search.all", { n: number(layout?.count ?? 0) })
        : found.total > found.rows.length ? t("search.some", { n: number(found.total), shown: found.rows.length }) : t("search.found", { n: number(found.total) });
    };
    const mark = (): void => {
      [...list.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === at)));
      list.children[at]?.scrollIntoView({ block: "nearest" });
      if (found.rows.length) box.setAttribute("aria-activedescendant", `found-${at}`);
      else box.removeAttribute("aria-activedescendant");
    };
    const press = (event: KeyboardEvent): void => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
      if (event.key === "Enter") go(at);
      else if (by && found.rows.length) {
        at = Math.abs(by) === 1 ? (at + by + found.rows.length) % found.rows.length : Math.max(0, Math.min(at + by, found.rows.length - 1));
        mark();
      } else return;
      event.preventDefault();
    };
    const go = (n: number): void => {
      const row = found.rows[n];
      const layout = store.state.figures[0]?.layout;
      if (row === undefined || !layout) return;
      pane.close();
      const id = layout.id(row);
      store.dispatch({ type: "highlight", highlight: { blocks: [id], cells: [], dim: true, reveal: 1 } });
      flyTo(app, [id]);
      app.stage.canvas.focus({ preventScroll: true });
    };
    onKey(store, "/", show);
  },
};

function option({ store }: App, row: number, n: number, choose: () => void): HTMLElement {
  const { layout } = store.state.figures[0];
  const kind = layout.kindAt(row);
  const [layer, head] = [layout.layer[row], layout.head[row]];
  const place = [layer >= 0 && t("layer", { n: layer }), head >= 0 && t("head.n", { n: head })].filter(Boolean).join(" · ");
  return el("li", { role: "option", id: `found-${n}`, onclick: choose },
    el("span", { class: `swatch ${kind.role}`, "aria-hidden": "true" }),
    el("b", {}, blockName(kind)), el("span", {}, place), el("code", {}, layout.id(row)));
}
