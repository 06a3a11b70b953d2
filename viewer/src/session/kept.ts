/** Answers that are kept: asked for once however many want them, and given up when nobody waits for them any more. */

interface Entry<T> {
  answer: Promise<T>;
  done: boolean;
  waiting: number;
  asking: AbortController;
}

export class Kept<T> {
  #entries = new Map<string, Entry<T>>(); // the one that was wanted last is the last

  /** At most so many answers. */
  constructor(private readonly most: number) {}

  /** The answer to `key`, as `load` finds it. Rejects as it does, and with the signal's reason; neither is kept. */
  get(key: string, load: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const entry = this.#entries.get(key) ?? this.#ask(key, load);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    this.#trim();
    return entry.done ? entry.answer : this.#wait(key, entry, signal);
  }

  #ask(key: string, load: (signal: AbortSignal) => Promise<T>): Entry<T> {
    const asking = new AbortController();
    const entry: Entry<T> = { answer: load(asking.signal), done: false, waiting: 0, asking };
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
        entry.asking.abort();
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
