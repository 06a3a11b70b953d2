/** The tour's keys: Space plays and pauses, the arrows change the step. */

import type { Store } from "../state/store";
import type { Command } from "../state/player";

const COMMANDS: Record<string, Command> = { " ": { do: "toggle" }, ArrowRight: { do: "next" }, ArrowLeft: { do: "previous" } };

export function watchKeys(store: Store): void {
  document.addEventListener("keydown", (event) => {
    const command = COMMANDS[event.key];
    if (!command || store.state.view.tour === null || event.defaultPrevented) return;
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || isHandled(event)) return;
    event.preventDefault();
    store.dispatch({ type: "tour", command });
  });
}

/** Whether the focused element handles this key itself. */
function isHandled({ target, key }: KeyboardEvent): boolean {
  if (!(target instanceof Element)) return false;
  const typing = "input, textarea, select, dialog";
  return target.closest(key === " " ? `${typing}, button, a, summary` : typing) !== null;
}
