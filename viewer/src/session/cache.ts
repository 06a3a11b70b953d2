/** A cache of requests that shares each one between its waiters. */

interface Entry<T> {
  response: Promise<T>;
  done: boolean;
  waiting: number;
  controller: AbortController;
}

export class RequestCache<T> {
  #entries = new Map<string, Entry<T>>(); // the least recently used first

  /** `most`: the number of cached responses. */
  constructor(private readonly most: number) {}

  /**
   * The response for `key`, cached or from `load`. A request is aborted when all its waiters have aborted. Rejects as
   * `load` does, or with the signal's reason.
   */
  get(key: string, load: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const entry = this.#entries.get(key) ?? this.#start(key, load);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.#trim();
    return entry.done ? entry.response : this.#wait(key, entry, signal);
  }

  #start(key: string, load: (signal: AbortSignal) => Promise<T>): Entry<T> {
    const controller = new AbortController();
    const entry: Entry<T> = { response: load(controller.signal), done: false, waiting: 0, controller };
    entry.response.then(
      () => (entry.done = true),
      () => this.#forget(key, entry),
    );
    return entry;
  }

  #wait(key: string, entry: Entry<T>, signal: AbortSignal): Promise<T> {
    entry.waiting++;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        reject(signal.reason as Error);
        if (--entry.waiting > 0 || entry.done) return;
        this.#forget(key, entry);
        entry.controller.abort();
      };
      if (signal.aborted) return leave();
      signal.addEventListener("abort", leave, { once: true });
      entry.response.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
    });
  }

  #forget(key: string, entry: Entry<T>): void {
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
  }

  #trim(): void {
    for (const [key, { done }] of this.#entries) {
      if (this.#entries.size <= this.most) return;
      if (done) this.#entries.delete(key);
    }
  }
}
