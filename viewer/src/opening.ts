/**
 * In which order the page opens where a processor has to do the work of a graphics processor, too. Only there it makes a
 * difference: the browser takes longer to draw all panels for the first time than all cells of nano-gpt.
 */

import type { State } from "./state/state";
import type { Store } from "./state/store";

const LONGEST = { headstart: 150, answer: 1000, picture: 3000 }; // milliseconds

/**
 * Until the page counts as loaded, since browsers turn something in its tab before, and until the trace is known, but not
 * for long: all else is on its way then, while the graphics keep the page busy.
 */
export async function underWay(store: Store): Promise<void> {
  const loaded = new Promise<void>((resolve) => addEventListener("load", () => setTimeout(resolve)));
  const known = new Promise<void>((resolve) => {
    store.subscribe(({ run }) => run.trace, (trace) => trace && setTimeout(resolve));
    setTimeout(resolve, LONGEST.headstart);
  });
  await Promise.all([loaded, known]);
}

/** Shows what is around the picture. */
export function open(): void {
  document.body.classList.remove("opening");
}

/** The same once the picture is there, or there is something to say before. */
export function openWith(picture: Promise<void>, store: Store): void {
  void picture.then(open);
  store.subscribe(hasNews, (has) => has && open());
  setTimeout(() => store.state.run.trace || store.state.figures.length || open(), LONGEST.answer);
  setTimeout(open, LONGEST.picture);
}

/** Whether who waits should know why. */
function hasNews({ run, trouble }: State): boolean {
  return trouble !== null || ["queued", "running", "failed"].includes(run.status);
}
