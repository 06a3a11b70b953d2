/** Every panel, in the order in which they are on the page. A new one is a module here and a line in this list. */

import { attention } from "./attention";
import { cell } from "./cell";
import { colours } from "./colours";
import { mountAids } from "./aids";
import { fold } from "./fold";
import { help } from "./help";
import { input } from "./input";
import { language } from "./language";
import { legend } from "./legend";
import { lens } from "./lens";
import { loading } from "./loading";
import { models } from "./models";
import { output } from "./output";
import { parameters } from "./parameters";
import { sampling } from "./sampling";
import { search } from "./search";
import type { App, Panel } from "./panel";
import type { Store } from "../state/store";
import { share } from "./share";
import { sizes } from "./sizes";
import { skip } from "./skip";
import { status } from "./status";
import { el } from "./dom";
import { t } from "../i18n/text";
import { tour } from "./tour";
import { touring } from "./touring";
import { traffic } from "./traffic";
import { welcome } from "./welcome";

export const panels: Panel[] = [
  skip, fold, models, search, touring, language, help, input, output, sizes, share, traffic,
  status, loading, cell, legend, welcome, tour, attention, lens, sampling, parameters, colours,
];

let mounted: { end(): void } | null = null;

/** Puts the panels on the page; again whenever the language changes. */
export function mountPanels(app: Omit<App, "store"> & { store: Store }): void {
  mounted?.end();
  const store = app.store.scope();
  mounted = store;
  const roots: Record<Panel["place"], HTMLElement> = {
    bar: byId("bar"), side: byId("side"), over: byId("over"), foot: byId("foot"), aid: byId("aids"),
  };
  for (const root of Object.values(roots)) root.replaceChildren();
  mountAids(panels.filter(({ place }) => place === "aid"), { ...app, store });
  for (const panel of panels.filter(({ place }) => place !== "aid")) {
    const inside = el("div", { class: `panel-body ${panel.id}` });
    if (panel.place === "side") {
      const section = el("details", { class: "panel", id: `panel-${panel.id}`, open: panel.open ?? true });
      section.append(el("summary", {}, t(panel.title)), inside);
      roots.side.append(section);
    } else {
      inside.setAttribute("role", "group");
      inside.setAttribute("aria-label", t(panel.title));
      roots[panel.place].append(inside);
    }
    panel.mount(inside, { ...app, store });
  }
}

function byId(id: string): HTMLElement {
  return document.getElementById(id)!;
}
