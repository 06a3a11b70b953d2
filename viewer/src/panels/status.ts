/** Alerts about the server and the graphics. */

import { t } from "../i18n/text";
import type { Trouble } from "../api/client";
import { el } from "./dom";
import type { Panel } from "./panel";

export const status: Panel = {
  id: "status",
  place: "over",
  title: "status",
  mount(root, { store }) {
    const line = (): HTMLElement => el("p", { role: "alert", class: "trouble", hidden: true });
    const [server, graphics] = [line(), line()];
    root.append(server, graphics);
    let timer = 0;
    const show = (trouble: Trouble, left: number): void => {
      server.textContent = t(`trouble.${trouble.kind}`, { seconds: Math.ceil(left) });
      if (left > 1) timer = window.setTimeout(() => show(trouble, left - 1), 1000);
    };
    store.subscribe((state) => state.trouble, (trouble) => {
      clearTimeout(timer);
      server.hidden = trouble === null;
      if (trouble) show(trouble, trouble.retryIn);
    });
    store.subscribe((state) => state.graphics, (why) => {
      graphics.hidden = why === null;
      graphics.textContent = why && t(`graphics.${why}`);
    });
  },
};
