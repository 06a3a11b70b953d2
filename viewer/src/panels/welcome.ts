/** For who is here for the first time: what this is, and two ways to begin. It never comes back once it was answered. */

import { t } from "../i18n/text";
import { button, el } from "./dom";
import type { Panel } from "./panel";

const KEY = "cutaway.welcomed";
const linked = location.hash.length > 1; // a link shows what it was made for

export const welcome: Panel = {
  id: "welcome",
  place: "foot",
  title: "welcome",
  mount(root, { store }) {
    if (linked || remembered()) return void (root.hidden = true);
    const away = (): void => {
      root.hidden = true;
      remember();
    };
    const start = button(t("welcome.tour"), () => store.dispatch({ type: "tour", command: { do: "start" } }), { class: "primary" });
    root.append(
      el("div", {}, el("strong", {}, t("welcome.title")), el("p", {}, t("welcome.text"))),
      el("div", { class: "row" }, start, button(t("welcome.explore"), away)),
    );
    store.subscribe(({ view }) => view.tour, (step) => step !== null && away());
  },
};

function remembered(): boolean {
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return false; // a browser that keeps nothing
  }
}

function remember(): void {
  try {
    localStorage.setItem(KEY, "1");
  } catch {
    // it will ask again
  }
}
