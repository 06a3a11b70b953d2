/** The store: applies actions and notifies subscribers. */

import { reduce, type Action } from "./actions";
import type { State } from "./state";

/** The public part of the store. */
export type Readable = Pick<Store, "state" | "dispatch" | "subscribe">;

/** The store for a part of the page, with subscriptions that end with it. */
export interface Scope extends Readable {
  onEnd(end: () => void): void; // run when it ends
  end(): void;
  scope(): Scope;
}

export class Store {
  #listeners = new Set<() => void>();

  constructor(private value: State) {}

  get state(): State {
    return this.value;
  }

  dispatch(action: Action): void {
    const next = reduce(this.value, action);
    if (next === this.value) return;
    this.value = next;
    for (const listener of Array.from(this.#listeners)) listener(); // of a copy: a listener may subscribe
  }

  /** Calls `listener` now and whenever the selected value changes (Object.is). Returns the function to unsubscribe. */
  subscribe<T>(select: (state: State) => T, listener: (picked: T, state: State) => void): () => void {
    let last = select(this.value);
    const check = (): void => {
      const picked = select(this.value);
      if (Object.is(picked, last)) return;
      last = picked;
      listener(picked, this.value);
    };
    this.#listeners.add(check);
    listener(last, this.value);
    return () => this.#listeners.delete(check);
  }

  /** A scope of this store: `end` unsubscribes its listeners. */
  scope(): Scope {
    const ends: (() => void)[] = [];
    const read = (): State => this.state;
    return {
      get state() {
        return read();
      },
      dispatch: (action) => this.dispatch(action),
      subscribe: (select, listener) => {
        const end = this.subscribe(select, listener);
        ends.push(end);
        return end;
      },
      onEnd: (end) => void ends.push(end),
      end: () => ends.splice(0).forEach((end) => end()),
      scope: () => this.scope(),
    };
  }
}
