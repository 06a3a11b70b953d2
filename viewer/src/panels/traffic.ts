/** The network panel: bytes received and reads in progress. */

import { number, t } from "../i18n/text";
import { el } from "./dom";
import type { Panel } from "./panel";

export const traffic: Panel = {
  id: "traffic",
  place: "side",
  title: "traffic",
  open: false,
  mount(root, { store }) {
    const total = el("p");
    const list = el("ul", { class: "fetching" });
    root.append(total, list);
    store.subscribe((state) => state.traffic, ({ running, waiting, bytes }) => {
      total.textContent = t("traffic.total", { mb: number(bytes / 1e6, 2), waiting });
      list.replaceChildren(...running.map((name) => el("li", {}, name)));
    });
  },
};
