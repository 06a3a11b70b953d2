/** Page-wide keyboard shortcuts, inactive while typing. */

import type { Scope } from "../state/store";

/** Calls `press` for this key until the scope ends. */
export function onKey(store: Scope, key: string, press: () => void): void {
  const listen = (event: KeyboardEvent): void => {
    if (event.key !== key || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    event.preventDefault();
    press();
  };
  document.addEventListener("keydown", listen);
  store.onEnd(() => document.removeEventListener("keydown", listen));
}

function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input:not([type=range], [type=checkbox]), textarea, select, dialog") !== null;
}
