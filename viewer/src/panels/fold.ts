/** The button that shows and hides the side panel. */

import { present } from "../checked/item";
import { t } from "../i18n/text";
import { button, icon } from "./dom";
import type { Panel } from "./panel";

const SIDE = "M4 5h16v14H4zM9 5v14";

export const fold: Panel = {
  id: "fold",
  place: "bar",
  title: "fold",
  mount(root) {
    const main = present(document.querySelector("main"), "main");
    const toggle = button("", () => markOpen(!main.classList.toggle("folded")), { class: "quiet", "aria-label": t("fold"), "aria-controls": "side" });
    const markOpen = (open: boolean): void => toggle.setAttribute("aria-expanded", String(open));
    toggle.append(icon(SIDE));
    markOpen(!main.classList.contains("folded"));
    root.append(toggle);
  },
};
