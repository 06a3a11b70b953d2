/**
 * Delays the panels until after the first picture. With software rendering this matters: drawing all panels for the
 * first time takes the browser longer than drawing all cells of nano-gpt.
 */

import type { State } from "./state/state";
import type { Store } from "./state/store";

const TIMEOUT = { response: 1000, picture: 3000 }; // milliseconds

/** Resolves with the first picture; earlier if there is a problem to show; at the latest after a timeout. */
export function whenReady(picture: Promise<void>, store: Store): Promise<void> {
  return new Promise((open) => {
    void picture.then(open);
    store.subscribe(hasMessage, (has) => has && open());
    setTimeout(() => store.state.run.trace || store.state.figures.length || open(), TIMEOUT.response);
    setTimeout(open, TIMEOUT.picture);
  });
}

/** Whether the panels have an error or a queue position to show. */
function hasMessage({ run, trouble, graphics }: State): boolean {
  return trouble !== null || graphics !== null || ["queued", "running", "failed"].includes(run.status);
}
