/** For what is told often but read by people: as often as they can follow. */

const PAUSE = 50; // milliseconds

/** What calls `act` in a moment, once for all that it was asked to until then. */
export function soon(act: () => void): () => void {
  let timer = 0;
  return () => {
    timer ||= window.setTimeout(() => {
      timer = 0;
      act();
    }, PAUSE);
  };
}
