/** Level of detail: when the camera rests, fetches what is in view as finely as it is seen, and forgets what is not. */

import { item } from "../checked/item";
import { Queue, type Job } from "../api/queue";
import type { Cell } from "../layout/place";
import type { Patch } from "../scene/blocks";
import type { Shown } from "../scene/models";
import type { Stage } from "../scene/stage";
import { sourceOf } from "../state/state";
import { soon } from "../state/soon";
import type { Store } from "../state/store";
import { choose, scaleOf, suffices, type Choice } from "./choose";
import type { Sources, Grid } from "./sources";
import { seen } from "./visible";

const REST = 120; // milliseconds without a frame
const FIRST = 1000; // milliseconds that a picture waits for its values at most, when it is the first
const MOST_BLOCKS = 500;
const AT_ONCE = 6; // as many as a browser opens connections

/** Values on the screen. */
interface Kept {
  patch: Patch;
  choice: Choice; // what they were fetched for
  shown: Shown;
  row: number;
  source: string; // the path under which they were read
  fine: boolean;
  wanted: number; // the last round that wanted it
}

export class Detail {
  readonly #queue: Queue;
  #kept = new Map<string, Kept>();
  #refused = new Set<string>(); // reads that are not worth another attempt
  #scales = new Map<string, { source: string; factor: number; scale: number }>();
  #round = 0;
  #timer = 0;

  constructor(
    private readonly stage: Stage,
    private readonly store: Store,
    private readonly sources: Sources,
  ) {
    let traffic: { running: string[]; waiting: number };
    const tell = soon(() => {
      const { running, waiting } = traffic;
      store.dispatch({ type: "traffic", traffic: { running: [...new Set(running.map(blockOf))], waiting } });
    });
    this.#queue = new Queue(AT_ONCE, (running, waiting) => {
      traffic = { running, waiting };
      tell();
      if (!running.length && !waiting && stage.models.shown.length) stage.begin();
    });
    stage.onFrame(() => this.#later(REST));
    store.subscribe(({ figures }) => figures, () => {
      this.#forget();
      if (stage.models.shown.length && !stage.frames) window.setTimeout(() => stage.begin(), FIRST);
      this.#later(0);
    });
  }

  /** Whether all that is wanted in this view is there. */
  get still(): boolean {
    return !this.#timer && this.#queue.idle;
  }

  /** In how many places cells have values. */
  get count(): number {
    return this.#kept.size;
  }

  /** What stands for full brightness in a block of the main figure; null while its values are not there. */
  scale(block: string): number | null {
    const [main] = this.stage.models.shown;
    const row = main?.figure.layout.row(block) ?? null;
    return !main || row === null ? null : (this.#scales.get(keyOf(main, row, false))?.scale ?? null);
  }

  /** The value of a cell, if it is on the screen in full detail. */
  value(shown: Shown, row: number, [i, j, k]: Cell): number | undefined {
    for (const fine of [true, false]) {
      const patch = this.#kept.get(keyOf(shown, row, fine))?.patch;
      if (!patch || k > 0 || patch.factors[0] > 1 || patch.factors[1] > 1) continue;
      const { part, start, width } = patch;
      if (i >= part.i0 && j >= part.j0 && i < part.i1 && j < part.j1) return this.stage.heap.get(start + (j - part.j0) * width + i - part.i0);
    }
    return undefined;
  }

  #later(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#look(), milliseconds);
  }

  #look(): void {
    this.#timer = 0;
    this.#round++;
    const jobs: Job[] = [];
    for (const { shown, row, visible, pixelsPerCell } of seen(this.stage, this.store.state.viewport).slice(0, MOST_BLOCKS))
      for (const choice of choose(shown.figure.layout.cellsOf(row), visible, pixelsPerCell)) {
        const job = this.#job(shown, row, choice);
        if (job) jobs.push(job);
      }
    this.#queue.want(jobs);
  }

  /** null where what is wanted is there, or nowhere. What is of another trace stays until its successor is there. */
  #job(shown: Shown, row: number, choice: Choice): Job | null {
    const { figure } = shown;
    const key = keyOf(shown, row, choice.fine);
    const source = sourceOf(figure, row);
    if (!source) {
      this.#drop(key);
      return null;
    }
    const kept = this.#kept.get(key);
    if (kept) kept.wanted = this.#round;
    if (kept?.source === source && suffices(kept.choice, choice)) return null;
    const { part, factor } = choice;
    const job = `${key}|${source}|${Object.values(part).join()}|${factor}`;
    if (this.#refused.has(job)) return null;
    return {
      key: job,
      run: async (signal) => {
        const grid = await this.sources.read(figure, row, source, choice, signal).catch((error: unknown) => {
          if (!signal.aborted) this.#refused.add(job);
          throw error;
        });
        if (!signal.aborted) this.#keep(key, shown, row, source, choice, grid);
      },
    };
  }

  #keep(key: string, shown: Shown, row: number, source: string, choice: Choice, grid: Grid): void {
    const { fine } = choice;
    this.#drop(key);
    let start = this.stage.heap.put(grid.values);
    for (const [oldest, kept] of [...this.#kept].sort(([, a], [, b]) => a.wanted - b.wanted)) {
      if (start !== null || kept.wanted === this.#round) break;
      this.#drop(oldest);
      start = this.stage.heap.put(grid.values);
    }
    if (start === null) return;
    const whole = grid.factors[0] * grid.factors[1] === 1 && !fine; // a small tensor came whole, whatever was wanted
    const got: Choice = whole ? { ...choice, factor: 1 } : choice;
    const patch: Patch = { start, width: grid.width, height: grid.height, factors: grid.factors, part: choice.part };
    this.#kept.set(key, { patch, choice: got, shown, row, source, fine, wanted: this.#round });
    shown.blocks.show(row, patch, fine);
    this.#rescale(shown, row, source, grid);
    this.stage.invalidate();
  }

  /** What stands for full brightness comes from the finest values that were seen: averages of many are smaller. */
  #rescale(shown: Shown, row: number, source: string, { values, factors }: Grid): void {
    const key = keyOf(shown, row, false);
    const known = this.#scales.get(key);
    const factor = factors[0] * factors[1];
    if (known?.source === source && known.factor <= factor) return;
    const scale = scaleOf(values);
    this.#scales.set(key, { source, factor, scale });
    shown.blocks.scale(row, scale);
  }

  #drop(key: string): void {
    const kept = this.#kept.get(key);
    if (!kept) return;
    this.#kept.delete(key);
    this.stage.heap.drop(kept.patch.start, kept.patch.width * kept.patch.height);
    kept.shown.blocks.show(kept.row, null, kept.fine);
  }

  /** Values of figures that are gone. */
  #forget(): void {
    const there = new Set(this.stage.models.shown.map(({ blocks }) => blocks));
    for (const [key, { shown }] of this.#kept) if (!there.has(shown.blocks)) this.#drop(key);
  }
}

/** The block that a job reads. */
function blockOf(key: string): string {
  return item(key.split("|"), 1);
}

function keyOf({ figure, blocks }: Shown, row: number, fine: boolean): string {
  return `${blocks.number}|${figure.layout.id(row)}|${fine ? "fine" : "all"}`;
}
