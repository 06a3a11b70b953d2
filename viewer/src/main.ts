/** The entry point: requests the data of the view while the code that draws it is loading. */

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
  const { show } = await import("./app").catch(again); // separate: the page counts as loaded earlier
  await show(store, service, sources);
}

/** The rest of the page could not be loaded: the server is unreachable, or has a newer version. */
function again(): Promise<never> {
  setTimeout(() => location.reload(), 3000);
  return new Promise(() => {});
}

function countBytes(client: Client, store: Store): void {
  let bytes = 0;
  const report = soon(() => store.dispatch({ type: "traffic", traffic: { bytes } }));
  client.received = (more) => {
    bytes += more;
    report();
  };
}

void start();
