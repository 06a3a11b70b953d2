/** Finds blocks by name or id, and flies to them. */

import { blockName } from "../i18n/names";
import { t } from "../i18n/text";
import type { Layout } from "../layout/layout";
import { flyTo } from "../scene/fly";
import { button, el } from "./dom";
import type { Panel } from "./panel";

const MOST = 12;

export const find: Panel = {
  id: "find",
  place: "bar",
  title: "find",
  mount(root, app) {
    const { store } = app;
    const list = el("ul", { class: "found", id: "found", hidden: true });
    const box = el("input", { type: "search", placeholder: t("find"), title: t("find.hint"), "aria-label": t("find"), autocomplete: "off", oninput: () => show() });
    const home = button("⌂", () => store.dispatch({ type: "camera", to: null }), { title: t("all"), "aria-label": t("all") });
    root.append(el("div", { class: "finder" }, box, list), home);
    const go = (id: string): void => {
      list.hidden = true;
      box.value = id;
      flyTo(app, [id]);
    };
    const show = (): void => {
      const layout = store.state.figures[0]?.layout;
      const rows = layout && box.value.trim() ? search(layout, box.value) : [];
      list.hidden = rows.length === 0;
      list.replaceChildren(
        ...rows.map((row) => {
          const one = button("", () => go(layout!.id(row)));
          one.append(el("span", {}, blockName(layout!.kindAt(row))), el("code", {}, layout!.id(row)));
          return el("li", {}, one);
        }),
      );
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") list.querySelector("button")?.click();
      if (event.key === "Escape") list.hidden = true;
    });
    root.addEventListener("focusout", (event) => {
      if (!root.contains(event.relatedTarget as Node | null)) list.hidden = true;
    });
  },
};

/** Words are looked for in names and ids; the first number is the layer, the second the head. */
export function search(layout: Layout, text: string, most = MOST): number[] {
  const exact = layout.row(text.trim());
  if (exact !== null) return [exact];
  const words = text.toLowerCase().split(/[\s.]+/).filter(Boolean);
  const [layer, head] = words.filter((word) => /^\d+$/.test(word)).map(Number);
  const rest = words.filter((word) => !/^\d+$/.test(word));
  const kinds = layout.kinds.map((kind) => {
    const told = `${blockName(kind)} ${kind.name} ${kind.id}`.toLowerCase();
    return rest.every((word) => told.includes(word));
  });
  const found: number[] = [];
  for (let row = 0; row < layout.count && found.length < most; row++)
    if (kinds[layout.kind[row]] && (layer === undefined || layout.layer[row] === layer) && (head === undefined || layout.head[row] === head)) found.push(row);
  return found;
}
