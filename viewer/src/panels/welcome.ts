/** The welcome on the first visit; once dismissed, it does not return. */

import { t } from "../i18n/text";
import { button, el } from "./dom";
import type { Panel } from "./panel";

const KEY = "cutaway.welcomed";
const linked = location.hash.length > 1; // links open without the welcome

export const welcome: Panel = {
  id: "welcome",
  place: "foot",
  title: "welcome",
  mount(root, { store }) {
    if (linked || wasDismissed()) return void (root.hidden = true);
    const dismiss = (): void => {
      root.hidden = true;
      rememberDismissal();
    };
    const start = button(t("welcome.tour"), () => store.dispatch({ type: "tour", command: { do: "start" } }), { class: "primary" });
    root.append(
      el("div", {}, el("strong", {}, t("welcome.title")), el("p", {}, t("welcome.text"))),
      el("div", { class: "row" }, start, button(t("welcome.explore"), dismiss)),
    );
    store.subscribe(({ view }) => view.tour, (step) => step !== null && dismiss());
  },
};

function wasDismissed(): boolean {
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return false; // storage is unavailable
  }
}

function rememberDismissal(): void {
  try {
    localStorage.setItem(KEY, "1");
  } catch {
    // storage is unavailable: the welcome is shown again on the next visit
  }
}
