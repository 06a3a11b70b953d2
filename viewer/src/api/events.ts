/** Follows a trace or a layout as it is computed, by the server-sent events that it tells. */

export interface Progress {
  done: number;
  total: number;
  unit: string;
  seconds_left?: number | null;
}

const PAUSE = 1000; // milliseconds after which it is worth another attempt
const ENDS = ["done", "failed", "cancelled"];

/** Resolves with how it ended, "unknown" where it was cut off; `tell` hears of every progress before. */
export function follow(url: string, tell: (progress: Progress) => void, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const source = new EventSource(url);
    const close = (): void => source.close();
    source.addEventListener("progress", (event) => tell(JSON.parse((event as MessageEvent<string>).data) as Progress));
    for (const end of ENDS)
      source.addEventListener(end, () => {
        close();
        resolve(end);
      });
    source.addEventListener("error", () => {
      close(); // who follows asks how it stands, with patience, and follows again
      setTimeout(() => resolve("unknown"), PAUSE);
    });
    signal?.addEventListener("abort", () => {
      close();
      reject(signal.reason as Error);
    });
  });
}
