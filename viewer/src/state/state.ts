/** The state of the page. */

import type { Trouble } from "../api/client";
import type { Progress } from "../api/events";
import type { Explanation, Formula, Model, ModelRef, Trace } from "../api/service";
import type { Layout } from "../layout/layout";
import { STOPPED, type Player } from "./player";
import type { CellAt, View } from "./view";

/** A displayed model. */
export interface Figure {
  ref: ModelRef;
  model: Model | null; // null for custom sizes
  layout: Layout;
  trace: Trace | null; // finished; null if the model was not run
  source: string; // the path under which its weights can be read
}

export interface Run {
  status: "idle" | "submitting" | "queued" | "running" | "done" | "failed";
  progress: Progress | null;
  position: number | null; // in the queue; 0 is next
  trace: Trace | null; // as first returned
  message: string | null; // the error
}

/** A cell of a block, or a line of cells. */
export interface Bar extends CellAt {
  to?: CellAt["cell"]; // the last of them
}

/** Blocks and cells emphasised by a panel or the tour. */
export interface Highlight {
  figure?: number; // the index of the blocks' model; 0 by default
  blocks: readonly string[]; // drawn with a frame, and filled up to `reveal`
  lit?: readonly string[]; // further blocks that are not dimmed
  cells: Bar[];
  dim: boolean; // whether all other blocks are dimmed
  reveal: number; // 0…1: the filled share of the blocks' cells
}

/** The data of the current cell. */
export interface CellInfo {
  at: CellAt;
  value: number | null | undefined; // null: −∞; undefined: not loaded
  explanation: Explanation | null;
  formula: Formula | null; // of its block
  message: string | null; // why there is no explanation
}

/** Network traffic. */
export interface Traffic {
  running: string[]; // blocks whose values are being read
  waiting: number;
  bytes: number; // since the page was opened
}

export interface State {
  view: View;
  models: Model[];
  figures: Figure[]; // the main model first; [] until it is loaded
  run: Run;
  hovered: CellAt | null;
  cellInfo: CellInfo | null; // of the current cell
  highlight: Highlight | null;
  player: Player; // of the tour, whose step is in the view
  traffic: Traffic;
  trouble: Trouble | null;
  graphics: "missing" | "lost" | null; // why there is no picture: no WebGL 2, or the context was lost
  viewport: { width: number; height: number };
}

export const IDLE: Run = { status: "idle", progress: null, position: null, trace: null, message: null };

export function initial(view: View): State {
  return {
    view,
    models: [],
    figures: [],
    run: IDLE,
    hovered: null,
    cellInfo: null,
    highlight: null,
    player: STOPPED,
    traffic: { running: [], waiting: 0, bytes: 0 },
    trouble: null,
    graphics: null,
    viewport: { width: 1, height: 1 },
  };
}

/** The current cell: the last pinned one, or else the one under the pointer. */
export function current(state: State): CellAt | null {
  return state.view.pinned.at(-1) ?? state.hovered;
}

/** The path of a block's values; null if it has none. */
export function sourceOf({ layout, trace, source }: Figure, row: number): string | null {
  const place = layout.place(row);
  if (!place) return null;
  if (layout.kindAt(row).role === "weight") return source;
  return trace?.tensors && place.name in trace.tensors ? `/v1/traces/${trace.id}` : null;
}

/** The number of positions computed by the view's step; null: all. */
export function positionsShown({ view, figures }: State): number | null {
  const trace = figures[0]?.trace;
  return view.step === null || !trace ? null : trace.tokens.length + Math.max(view.step - 1, 0);
}
