/** The list of panels, in page order. */

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
import type { Scope, Store } from "../state/store";
import { share } from "./share";
import { sizes } from "./sizes";
import { skip } from "./skip";
import { status } from "./status";
import { byId, el } from "./dom";
import { t } from "../i18n/text";
import { tour } from "./tour";
import { tourButton } from "./tourButton";
import { traffic } from "./traffic";
import { welcome } from "./welcome";

export const panels: Panel[] = [
  skip, fold, models, search, tourButton, language, help, input, output, sizes, share, traffic,
  status, loading, cell, legend, welcome, tour, attention, lens, sampling, parameters, colours,
];

const ROOTS = { bar: "bar", side: "side", over: "over", foot: "foot", aid: "aids" } as const;
const mounted = new Map<Panel["place"], Scope>();

/** Mounts the panels of a place, replacing those mounted before. */
export function mountPanels(place: Panel["place"], app: Omit<App, "store"> & { store: Store }): void {
  mounted.get(place)?.end();
  const here = panels.filter((panel) => panel.place === place);
  const store = app.store.scope();
  mounted.set(place, store);
  const root = byId(ROOTS[place]);
  root.replaceChildren();
  if (place === "aid") mountAids(here, { ...app, store });
  else for (const panel of here) panel.mount(appendRoot(panel, root), { ...app, store });
}

/** Appends an element for a panel. */
function appendRoot(panel: Panel, root: HTMLElement): HTMLElement {
  const inside = el("div", { class: `panel-body ${panel.id}` });
  if (panel.place === "side") {
    const section = el("details", { class: "panel", id: `panel-${panel.id}`, open: panel.open ?? true });
    section.append(el("summary", {}, t(panel.title)), inside);
    root.append(section);
  } else {
    inside.setAttribute("role", "group");
    inside.setAttribute("aria-label", t(panel.title));
    root.append(inside);
  }
  return inside;
}
