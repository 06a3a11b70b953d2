/** Throttling of frequent display updates. */

const PAUSE = 50; // milliseconds

/** A function that calls `act` once after a pause, however often it is called until then. */
export function throttle(act: () => void): () => void {
  let timer = 0;
  return () => {
    timer ||= window.setTimeout(() => {
      timer = 0;
      act();
    }, PAUSE);
  };
}
