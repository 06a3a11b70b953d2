/** Throttling of frequent updates that people read. */

const PAUSE = 50; // milliseconds

/** A function that calls `act` after a pause, once for all calls until then. */
export function soon(act: () => void): () => void {
  let timer = 0;
  return () => {
    timer ||= window.setTimeout(() => {
      timer = 0;
      act();
    }, PAUSE);
  };
}
