/** A cache of requests: each is sent once for all callers, and aborted when the last caller has left. */

interface Entry<T> {
  answer: Promise<T>;
  done: boolean;
  waiting: number;
  controller: AbortController;
}

export class RequestCache<T> {
  #entries = new Map<string, Entry<T>>(); // the least recently used first

  /** `most`: the number of answers in the cache. */
  constructor(private readonly most: number) {}

  /** The answer for `key`, from the cache or by `load`. Rejects as `load` does, or with the signal's reason. */
  get(key: string, load: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const entry = this.#entries.get(key) ?? this.#start(key, load);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.#trim();
    return entry.done ? entry.answer : this.#wait(key, entry, signal);
  }

  #start(key: string, load: (signal: AbortSignal) => Promise<T>): Entry<T> {
    const controller = new AbortController();
    const entry: Entry<T> = { answer: load(controller.signal), done: false, waiting: 0, controller };
    entry.answer.then(
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
      entry.answer.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
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
