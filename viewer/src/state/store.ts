/** The one store. Actions go in by `dispatch`; whoever draws is told by `subscribe` when what it draws has changed. */

import { reduce, type Action } from "./actions";
import type { State } from "./state";

/** What of it a panel gets. */
export type Readable = Pick<Store, "state" | "dispatch" | "subscribe">;

/** What of it a part of the page gets that will be taken away. */
export interface Scope extends Readable {
  onEnd(end: () => void): void; // what else ends with it
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

  /** Calls `listener` now and whenever what `select` picks is another value (===). Returns what ends that. */
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

  /** This store, for a part of the page that will be taken away: `end` ends what was subscribed through it. */
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
