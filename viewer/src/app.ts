/** Assembles the picture and the panels around the state. */

import type { Service } from "./api/service";
import { Detail } from "./detail/detail";
import type { Sources } from "./detail/sources";
import { labelPage, setTitle } from "./panels/page";
import { whenReady } from "./opening";
import type { Panel } from "./panels/panel";
import { mountPanels } from "./panels/registry";
import { watchArrows } from "./picking/neighbours";
import { watchPointer } from "./picking/pointer";
import { Overlay } from "./scene/overlay";
import { Rig } from "./scene/rig";
import { Stage } from "./scene/stage";
import { explainCells } from "./session/explain";
import { fromHash, toHash } from "./state/address";
import type { Store } from "./state/store";
import { Director } from "./tour/director";
import { watchKeys } from "./tour/keys";

/** Shows the state: the picture first, then the panels. */
export async function show(store: Store, service: Service, sources: Sources): Promise<void> {
  const stage = new Stage(document.getElementById("picture") as HTMLCanvasElement, store);
  const detail = new Detail(stage, store, sources);
  new Rig(stage, store);
  new Overlay(document.getElementById("overlay") as HTMLCanvasElement, stage, store);
  watchPointer(stage, store);
  watchArrows(stage, store);
  new Director(store, service, stage);
  watchKeys(store);
  explainCells(store, service, stage, detail);
  const app = { store, service, stage, detail };
  Object.assign(window, { cutaway: app }); // for the console, and for tests
  const mount = (...places: Panel["place"][]): void => {
    store.subscribe(({ view }) => view.language, () => places.forEach((place) => mountPanels(place, app)));
  };
  store.subscribe(({ view }) => view.language, () => labelPage(store));
  mount("foot", "aid"); // before the picture, whose size they change
  stage.start();
  void stage.first.then(() => performance.mark("first picture")); // for measurements
  await whenReady(stage.first, store);
  mount("bar", "side", "over");
  document.body.classList.remove("opening");
  store.subscribe(({ figures }) => figures[0], setTitle);
  keepAddress(store);
}

/** Writes the view to the address, and follows changes of the address: typed, or by the browser's history. */
function keepAddress(store: Store): void {
  let timer = 0;
  const write = (): void => {
    const hash = toHash(store.state.view);
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`); // replacing it redraws the browser's bar
  };
  store.subscribe(({ view }) => view, () => {
    clearTimeout(timer);
    timer = window.setTimeout(write, 200);
  });
  addEventListener("hashchange", () => store.dispatch({ type: "view", change: fromHash(location.hash) }));
}
