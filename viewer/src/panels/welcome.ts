/** The welcome on the first visit: what this is, and two ways to start. Once answered, it does not come back. */

import { t } from "../i18n/text";
import { button, el } from "./dom";
import type { Panel } from "./panel";

const KEY = "cutaway.welcomed";
const linked = location.hash.length > 1; // a link is opened without the welcome

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
    return false; // no storage in this browser
  }
}

function remember(): void {
  try {
    localStorage.setItem(KEY, "1");
  } catch {
    // it is shown again next time
  }
}
