/** The language switch. */

import { LANGUAGES, t, currentLanguage } from "../i18n/text";
import { el, select } from "./dom";
import type { Panel } from "./panel";

export const language: Panel = {
  id: "language",
  place: "bar",
  title: "language",
  mount(root, { store }) {
    const list = select(Object.entries(LANGUAGES), currentLanguage(), (chosen) => store.dispatch({ type: "view", change: { language: chosen } }));
    list.setAttribute("aria-label", t("language"));
    root.append(el("a", { href: "/docs", class: "quiet" }, t("docs")), list);
  },
};
