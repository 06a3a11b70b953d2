/** What is wrong with the server, as long as it is. */

import { t } from "../i18n/text";
import { el } from "./dom";
import type { Panel } from "./panel";

export const status: Panel = {
  id: "status",
  place: "over",
  title: "status",
  mount(root, { store }) {
    const line = el("p", { role: "alert", class: "trouble", hidden: true });
    root.append(line);
    store.subscribe((state) => state.trouble, (trouble) => {
      line.hidden = trouble === null;
      if (trouble) line.textContent = t(`trouble.${trouble.kind}`, { seconds: Math.ceil(trouble.retryIn) });
    });
  },
};
