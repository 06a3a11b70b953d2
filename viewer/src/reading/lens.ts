/** The logit lens, and attention rollout. */

import type { Progress } from "../api/events";
import type { Layout } from "../layout/layout";
import type { Lens, Service, Trace } from "../api/service";

const WAIT = 2; // seconds that a request waits for progress
const MOST = 131_072; // numbers in one response of the service

/** Loads a part of a lens once it is computed. Throws if that failed. */
export async function loadLens(service: Service, trace: Trace, query: Record<string, string>, onProgress: (progress: Progress | null) => void, signal: AbortSignal): Promise<Lens> {
  for (;;) {
    const lens = await service.lens(trace.id, query, WAIT, signal);
    if (lens.status === "done") return lens;
    if (lens.status === "failed" || lens.status === "cancelled") throw new Error(lens.error?.detail ?? lens.status);
    signal.throwIfAborted();
    onProgress(lens.progress ?? null);
  }
}

/** The block with the residual stream after this many layers. */
export function blockAfter(layout: Layout, layers: number): string | null {
  return layers === 0 ? layout.blockOf("embedding") : layout.blockOf("resid", layers - 1);
}

/** The query for the rollout of as many of the last positions as fit into one response. */
export function rolloutQuery(positions: number): Record<string, string> {
  const rows = Math.max(1, Math.min(positions, Math.floor(MOST / (positions + 1))));
  return { top: "1", layers: "0:1", attention: "rollout", positions: `${positions - rows}:${positions}` };
}

/** The share of each token in each position after all layers: [positions, positions]. */
export function rolloutOf(lens: Lens, positions: number): Float32Array<ArrayBuffer> {
  const all = new Float32Array(positions * positions);
  for (const { position, shares } of lens.rollout ?? []) all.set(shares, position * positions);
  return all;
}

/** The window of `width` positions that contains `position`; the last window is moved back to be full. */
export function windowOf(position: number, positions: number, width: number): { start: number; stop: number } {
  const start = Math.max(0, Math.min(Math.floor(position / width) * width, positions - width));
  return { start, stop: Math.min(start + width, positions) };
}
