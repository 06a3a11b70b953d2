/** Puts the viewer together: the state in the middle, what loads on one side, what draws on the other. */

import { Client } from "./api/client";
import { Service } from "./api/service";
import { Detail } from "./detail/detail";
import { Sources } from "./detail/sources";
import { tellPage, tellTitle } from "./i18n/page";
import { preferred, use } from "./i18n/text";
import { open, openWith, underWay } from "./opening";
import { mountPanels } from "./panels/registry";
import { watchArrows } from "./picking/beside";
import { watchPointer } from "./picking/pointer";
import { Overlay } from "./scene/overlay";
import { Rig } from "./scene/rig";
import { Stage } from "./scene/stage";
import { explainCells } from "./session/explain";
import { Session } from "./session/session";
import { fromHash, toHash } from "./state/address";
import { initial } from "./state/state";
import { soon } from "./state/soon";
import { Store } from "./state/store";
import { Director } from "./tour/director";
import { watchKeys } from "./tour/keys";

async function start(): Promise<void> {
  const store = new Store(initial(fromHash(location.hash)));
  const client = new Client("", (trouble) => store.dispatch({ type: "trouble", trouble }));
  countBytes(client, store);
  const service = new Service(client);
  const sources = new Sources(service, store);
  new Session(service, store).start();
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
  store.subscribe(({ view }) => view.language, (chosen) => {
    use(preferred(chosen));
    tellPage(store);
    mountPanels(app);
  });
  keepAddress(store);
  Object.assign(window, { cutaway: app }); // for the console, and for tests
  await underWay(store);
  try {
    stage.start();
  } catch (error) {
    open(); // what can be had without WebGL
    throw error;
  }
  openWith(stage.first, store);
  await stage.first;
  performance.mark("first picture"); // for who measures
  store.subscribe(({ figures }) => figures[0], tellTitle);
}

function countBytes(client: Client, store: Store): void {
  let bytes = 0;
  const tell = soon(() => store.dispatch({ type: "traffic", traffic: { bytes } }));
  client.received = (more) => {
    bytes += more;
    tell();
  };
}

/** The address always tells what is seen; an address that is typed or gone back to is followed. */
function keepAddress(store: Store): void {
  let timer = 0;
  const write = (): void => {
    const hash = toHash(store.state.view);
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`); // the browser draws its bar anew
  };
  store.subscribe(({ view }) => view, () => {
    clearTimeout(timer);
    timer = window.setTimeout(write, 200);
  });
  addEventListener("hashchange", () => store.dispatch({ type: "view", change: fromHash(location.hash) }));
}

void start();
