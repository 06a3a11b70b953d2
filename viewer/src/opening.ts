/**
 * The picture comes first, then what is around it. Where a processor has to do the work of a graphics processor, too,
 * this makes a difference: the browser takes longer to draw all panels for the first time than all cells of nano-gpt.
 */

import type { State } from "./state/state";
import type { Store } from "./state/store";

const LONGEST = { answer: 1000, picture: 3000 }; // milliseconds

/** Resolves with the first picture, or earlier if there is something to show, or after a limit. */
export function opened(picture: Promise<void>, store: Store): Promise<void> {
  return new Promise((open) => {
    void picture.then(open);
    store.subscribe(hasNews, (has) => has && open());
    setTimeout(() => store.state.run.trace || store.state.figures.length || open(), LONGEST.answer);
    setTimeout(open, LONGEST.picture);
  });
}

/** Whether there is a reason for the wait to show. */
function hasNews({ run, trouble, graphics }: State): boolean {
  return trouble !== null || graphics !== null || ["queued", "running", "failed"].includes(run.status);
}
