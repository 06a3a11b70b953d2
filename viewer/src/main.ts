/** Puts the viewer together: the state in the middle, what loads on one side, what draws on the other. */

import { Client } from "./api/client";
import { Service } from "./api/service";
import { Detail } from "./detail/detail";
import { tellPage, tellTitle } from "./i18n/page";
import { preferred, use } from "./i18n/text";
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
import { Store } from "./state/store";
import { Director } from "./tour/director";
import { watchKeys } from "./tour/keys";

const HEADSTART = 150; // milliseconds that the service's first answer has before the graphics keep the page busy

async function start(): Promise<void> {
  const store = new Store(initial(fromHash(location.hash)));
  const client = new Client("", (trouble) => store.dispatch({ type: "trouble", trouble }));
  client.received = (bytes) => store.dispatch({ type: "traffic", traffic: { bytes: store.state.traffic.bytes + bytes } });
  const service = new Service(client);
  new Session(service, store).start();
  await headstart(store); // so that it asks for the picture, too, while the graphics get ready
  const picture = document.getElementById("picture") as HTMLCanvasElement;
  const stage = new Stage(picture, store);
  const detail = new Detail(stage, store, service);
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
  store.subscribe(({ figures }) => figures[0], tellTitle);
  keepAddress(store);
  Object.assign(window, { cutaway: app }); // for the console, and for tests
}

/** Until the trace is known, but not for long. */
function headstart(store: Store): Promise<void> {
  return new Promise((resolve) => {
    store.subscribe(({ run }) => run.trace, (trace) => trace && resolve());
    setTimeout(resolve, HEADSTART);
  });
}

/** The address always tells what is seen; an address that is typed or gone back to is followed. */
function keepAddress(store: Store): void {
  let timer = 0;
  const write = (): void => history.replaceState(null, "", `#${toHash(store.state.view)}`);
  store.subscribe(({ view }) => view, () => {
    clearTimeout(timer);
    timer = window.setTimeout(write, 200);
  });
  addEventListener("hashchange", () => store.dispatch({ type: "view", change: fromHash(location.hash) }));
}

void start();
