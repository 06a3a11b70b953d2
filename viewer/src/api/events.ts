/** Server-sent events of a job. */

export interface Progress {
  done: number;
  total: number;
  unit: string;
  seconds_left?: number | null;
}

const PAUSE = 1000; // milliseconds before a lost connection is reported
const ENDS = ["done", "failed", "cancelled"];

/** Follows a job's progress; resolves with its final status, or "unknown" if the connection was lost. */
export function follow(url: string, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const source = new EventSource(url);
    const close = (): void => source.close();
    source.addEventListener("progress", (event) => onProgress(JSON.parse((event as MessageEvent<string>).data) as Progress));
    for (const end of ENDS)
      source.addEventListener(end, () => {
        close();
        resolve(end);
      });
    source.addEventListener("error", () => {
      close(); // the caller requests the status, with retries, and follows again
      setTimeout(() => resolve("unknown"), PAUSE);
    });
    signal?.addEventListener("abort", () => {
      close();
      reject(signal.reason as Error);
    });
  });
}
