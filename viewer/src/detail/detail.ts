/** Level of detail: fetches the values in view at screen resolution when the camera rests. */

import { item } from "../checked/item";
import { Queue, type Job } from "../api/queue";
import type { Cell } from "../layout/place";
import type { Patch } from "../scene/blocks";
import type { Shown } from "../scene/models";
import type { Stage } from "../scene/stage";
import { sourceOf } from "../state/state";
import { throttle } from "../state/throttle";
import type { Store } from "../state/store";
import { choose, scaleOf, suffices, type Choice } from "./choose";
import type { Sources, Grid } from "./sources";
import { blocksInView } from "./visible";

const REST = 120; // milliseconds without a frame
const FIRST = 1000; // milliseconds that the first picture waits for values
const MOST_BLOCKS = 500;
const AT_ONCE = 6; // the number of connections that a browser opens

/** Values on the screen. */
interface Loaded {
  patch: Patch;
  choice: Choice; // that they were fetched for
  shown: Shown;
  row: number;
  source: string; // the path under which they were read
  fine: boolean;
  wanted: number; // the last update that needed it
}

export class Detail {
  readonly #queue: Queue;
  #loaded = new Map<string, Loaded>();
  #failed = new Set<string>(); // reads not to be repeated
  #scales = new Map<string, { source: string; factor: number; scale: number }>();
  #round = 0;
  #timer = 0;

  constructor(
    private readonly stage: Stage,
    private readonly store: Store,
    private readonly sources: Sources,
  ) {
    let traffic: { running: string[]; waiting: number };
    const report = throttle(() => {
      const { running, waiting } = traffic;
      store.dispatch({ type: "traffic", traffic: { running: [...new Set(running.map(blockOf))], waiting } });
    });
    this.#queue = new Queue(AT_ONCE, (running, waiting) => {
      traffic = { running, waiting };
      report();
      if (!running.length && !waiting && stage.models.shown.length) stage.begin();
    });
    stage.onFrame(() => this.#schedule(REST));
    store.subscribe(({ figures }) => figures, () => {
      this.#dropHidden();
      if (stage.models.shown.length && !stage.frames) window.setTimeout(() => stage.begin(), FIRST);
      this.#schedule(0);
    });
  }

  /** Whether all values for this view are loaded. */
  get still(): boolean {
    return !this.#timer && this.#queue.idle;
  }

  /** The number of patches of values on the screen. */
  get count(): number {
    return this.#loaded.size;
  }

  /** The value that has full brightness in a block of the main figure; null until its values are loaded. */
  scale(block: string): number | null {
    const [main] = this.stage.models.shown;
    const row = main?.figure.layout.row(block) ?? null;
    return !main || row === null ? null : (this.#scales.get(keyOf(main, row, false))?.scale ?? null);
  }

  /** The value of a cell, if it is on the screen in full detail. */
  value(shown: Shown, row: number, [i, j, k]: Cell): number | undefined {
    for (const fine of [true, false]) {
      const patch = this.#loaded.get(keyOf(shown, row, fine))?.patch;
      if (!patch || k > 0 || patch.factors[0] > 1 || patch.factors[1] > 1) continue;
      const { part, start, width } = patch;
      if (i >= part.i0 && j >= part.j0 && i < part.i1 && j < part.j1) return this.stage.heap.get(start + (j - part.j0) * width + i - part.i0);
    }
    return undefined;
  }

  #schedule(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#update(), milliseconds);
  }

  #update(): void {
    this.#timer = 0;
    this.#round++;
    const jobs: Job[] = [];
    for (const { shown, row, visible, pixelsPerCell } of blocksInView(this.stage, this.store.state.viewport).slice(0, MOST_BLOCKS))
      for (const choice of choose(shown.figure.layout.cellsOf(row), visible, pixelsPerCell)) {
        const job = this.#job(shown, row, choice);
        if (job) jobs.push(job);
      }
    this.#queue.want(jobs);
  }

  /** null if the values are loaded or do not exist. Values of the previous trace stay until they are replaced. */
  #job(shown: Shown, row: number, choice: Choice): Job | null {
    const { figure } = shown;
    const key = keyOf(shown, row, choice.fine);
    const source = sourceOf(figure, row);
    if (!source) {
      this.#drop(key);
      return null;
    }
    const loaded = this.#loaded.get(key);
    if (loaded) loaded.wanted = this.#round;
    if (loaded?.source === source && suffices(loaded.choice, choice)) return null;
    const { part, factor } = choice;
    const job = `${key}|${source}|${Object.values(part).join()}|${factor}`;
    if (this.#failed.has(job)) return null;
    return {
      key: job,
      run: async (signal) => {
        const grid = await this.sources.read(figure, row, source, choice, signal).catch((error: unknown) => {
          if (!signal.aborted) this.#failed.add(job);
          throw error;
        });
        if (!signal.aborted) this.#store(key, shown, row, source, choice, grid);
      },
    };
  }

  #store(key: string, shown: Shown, row: number, source: string, choice: Choice, grid: Grid): void {
    const { fine } = choice;
    this.#drop(key);
    let start = this.stage.heap.put(grid.values);
    for (const [oldest, loaded] of [...this.#loaded].sort(([, a], [, b]) => a.wanted - b.wanted)) {
      if (start !== null || loaded.wanted === this.#round) break;
      this.#drop(oldest);
      start = this.stage.heap.put(grid.values);
    }
    if (start === null) return;
    const whole = grid.factors[0] * grid.factors[1] === 1 && !fine; // small tensors are loaded whole, regardless of the choice
    const got: Choice = whole ? { ...choice, factor: 1 } : choice;
    const patch: Patch = { start, width: grid.width, height: grid.height, factors: grid.factors, part: choice.part };
    this.#loaded.set(key, { patch, choice: got, shown, row, source, fine, wanted: this.#round });
    shown.blocks.show(row, patch, fine);
    this.#rescale(shown, row, source, grid);
    this.stage.invalidate();
  }

  /** Takes full brightness from the finest values loaded so far: averages are smaller. */
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
    const loaded = this.#loaded.get(key);
    if (!loaded) return;
    this.#loaded.delete(key);
    this.stage.heap.drop(loaded.patch.start, loaded.patch.width * loaded.patch.height);
    loaded.shown.blocks.show(loaded.row, null, loaded.fine);
  }

  /** Drops the values of figures that are no longer shown. */
  #dropHidden(): void {
    const there = new Set(this.stage.models.shown.map(({ blocks }) => blocks));
    for (const [key, { shown }] of this.#loaded) if (!there.has(shown.blocks)) this.#drop(key);
  }
}

/** The block that a job reads. */
function blockOf(key: string): string {
  return item(key.split("|"), 1);
}

function keyOf({ figure, blocks }: Shown, row: number, fine: boolean): string {
  return `${blocks.number}|${figure.layout.id(row)}|${fine ? "fine" : "all"}`;
}
