/** Keys that work wherever the focus is, but where something is being typed. */

import type { Scope } from "../state/store";

/** Calls `press` for this key as long as the part of the page is there. */
export function onKey(store: Scope, key: string, press: () => void): void {
  const hear = (event: KeyboardEvent): void => {
    if (event.key !== key || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    event.preventDefault();
    press();
  };
  document.addEventListener("keydown", hear);
  store.onEnd(() => document.removeEventListener("keydown", hear));
}

function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input:not([type=range], [type=checkbox]), textarea, select, dialog") !== null;
}
