/** The skip link to the picture. */

import { t } from "../i18n/text";
import { button, byId } from "./dom";
import type { Panel } from "./panel";

export const skip: Panel = {
  id: "skip",
  place: "bar",
  title: "skip",
  mount(root) {
    root.append(button(t("skip"), () => byId("picture").focus(), { class: "skip-link" }));
  },
};
