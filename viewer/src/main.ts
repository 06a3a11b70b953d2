/** Begins: asks for what is to be seen, which takes little, while what draws it is still on its way. */

import { Client } from "./api/client";
import { Service } from "./api/service";
import { Sources } from "./detail/sources";
import { preferred, use } from "./i18n/text";
import { Session } from "./session/session";
import { fromHash } from "./state/address";
import { initial } from "./state/state";
import { soon } from "./state/soon";
import { Store } from "./state/store";

async function start(): Promise<void> {
  const store = new Store(initial(fromHash(location.hash)));
  store.subscribe(({ view }) => view.language, (chosen) => use(preferred(chosen)));
  const client = new Client("", (trouble) => store.dispatch({ type: "trouble", trouble }));
  countBytes(client, store);
  const service = new Service(client);
  const sources = new Sources(service, store);
  new Session(service, store).start();
  const { show } = await import("./app").catch(again); // apart: the page counts as loaded, so the browser draws its tab no more
  await show(store, service, sources);
}

/** The rest of the page did not come: the server went away, or has a newer page by now. */
function again(): Promise<never> {
  setTimeout(() => location.reload(), 3000);
  return new Promise(() => {});
}

function countBytes(client: Client, store: Store): void {
  let bytes = 0;
  const tell = soon(() => store.dispatch({ type: "traffic", traffic: { bytes } }));
  client.received = (more) => {
    bytes += more;
    tell();
  };
}

void start();
