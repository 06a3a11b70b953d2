/** The entry point: requests the view's data while the code that draws it loads. */

import { Client } from "./api/client";
import { Service } from "./api/service";
import { Sources } from "./detail/sources";
import { preferred, setLanguage } from "./i18n/text";
import { Session } from "./session/session";
import { fromHash } from "./state/address";
import { initial } from "./state/state";
import { throttle } from "./state/throttle";
import { Store } from "./state/store";

async function start(): Promise<void> {
  const store = new Store(initial(fromHash(location.hash)));
  store.subscribe(({ view }) => view.language, (chosen) => setLanguage(preferred(chosen)));
  const client = new Client("", (trouble) => store.dispatch({ type: "trouble", trouble }));
  countBytes(client, store);
  const service = new Service(client);
  const sources = new Sources(service, store);
  new Session(service, store).start();
  const { show } = await import("./app").catch(reloadSoon); // a separate chunk, so that the page counts as loaded earlier
  await show(store, service, sources);
}

/** Reloads the page if a chunk failed to load: the server is unreachable, or has a newer version. */
function reloadSoon(): Promise<never> {
  setTimeout(() => location.reload(), 3000);
  return new Promise(() => {});
}

function countBytes(client: Client, store: Store): void {
  let bytes = 0;
  const report = throttle(() => store.dispatch({ type: "traffic", traffic: { bytes } }));
  client.received = (more) => {
    bytes += more;
    report();
  };
}

void start();
