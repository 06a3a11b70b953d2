/** The button in the top bar that starts and ends the tour. */

import { t } from "../i18n/text";
import { button } from "./dom";
import type { Panel } from "./panel";

export const tourButton: Panel = {
  id: "tourButton",
  place: "bar",
  title: "tour",
  mount(root, { store }) {
    const press = (): void => store.dispatch({ type: "tour", command: { do: store.state.view.tour === null ? "start" : "end" } });
    const toggle = button(t("tour"), press, { class: "tour-begin" });
    root.append(toggle);
    store.subscribe(({ view }) => view.tour !== null, (on) => toggle.setAttribute("aria-pressed", String(on)));
  },
};
