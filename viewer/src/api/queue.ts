/** A queue of reads that cancels those no longer needed, running or not. */

export interface Job {
  key: string;
  run(signal: AbortSignal): Promise<void>;
}

export class Queue {
  #waiting: Job[] = [];
  #running = new Map<string, AbortController>();

  constructor(
    private readonly width: number,
    private readonly changed: (running: string[], waiting: number) => void = () => {},
  ) {}

  get idle(): boolean {
    return !this.#running.size && !this.#waiting.length;
  }

  /** Replaces the queue, the most urgent job first; jobs that run already continue. */
  want(jobs: Job[]): void {
    const wanted = new Set(jobs.map((job) => job.key));
    for (const [key, controller] of this.#running) if (!wanted.has(key)) controller.abort();
    this.#waiting = jobs.filter((job) => !this.#running.has(job.key));
    this.#next();
  }

  #next(): void {
    const starting = this.#waiting.splice(0, Math.max(this.width - this.#running.size, 0));
    for (const job of starting) void this.#start(job);
    this.changed([...this.#running.keys()], this.#waiting.length);
  }

  async #start(job: Job): Promise<void> {
    const controller = new AbortController();
    this.#running.set(job.key, controller);
    try {
      await job.run(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) console.warn(`${job.key}:`, error);
    } finally {
      this.#running.delete(job.key);
      this.#next();
    }
  }
}
