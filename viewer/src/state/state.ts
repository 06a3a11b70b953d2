/** The state of the page: the view, what was loaded for it, and what the pointer is at. */

import type { Trouble } from "../api/client";
import type { Progress } from "../api/events";
import type { Explanation, Formula, Model, ModelRef, Trace } from "../api/service";
import type { Layout } from "../layout/layout";
import { STOPPED, type Player } from "./player";
import type { CellAt, View } from "./view";

/** A model that is shown. */
export interface Figure {
  ref: ModelRef;
  model: Model | null; // null for custom sizes
  layout: Layout;
  trace: Trace | null; // finished; null where there are no values
  source: string; // the path under which its weights can be read
}

export interface Run {
  status: "idle" | "asking" | "queued" | "running" | "done" | "failed";
  progress: Progress | null;
  position: number | null; // in the queue; 0 is next
  trace: Trace | null; // as first returned
  message: string | null; // the error, as the server worded it
}

/** Cells of a block in a line, or one alone. */
export interface Bar extends CellAt {
  to?: CellAt["cell"]; // the last of them
}

/** Blocks and cells that a panel or the tour points at. */
export interface Highlight {
  figure?: number; // the model of the blocks; the main one by default
  blocks: readonly string[]; // framed, and filled as far as they are computed
  lit?: readonly string[]; // further ones that are not dimmed
  cells: Bar[];
  dim: boolean; // whether all other blocks are dimmed
  reveal: number; // 0…1: how much of the blocks' cells is computed already
}

/** What is known of the current cell. */
export interface CellInfo {
  at: CellAt;
  value: number | null | undefined; // null: −∞; undefined: not known yet
  explanation: Explanation | null;
  formula: Formula | null; // how cells of its block are computed, where there is no trace
  message: string | null; // why there is no explanation
}

/** Network traffic. */
export interface Traffic {
  running: string[];
  waiting: number;
  bytes: number; // since the page was opened
}

export interface State {
  view: View;
  models: Model[];
  figures: Figure[]; // the main one first; [] until it is loaded
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

/** The current cell: the last one pinned, or else the one under the pointer. */
export function current(state: State): CellAt | null {
  return state.view.pinned.at(-1) ?? state.hovered;
}

/** The path of a block's values; null where there are none. */
export function sourceOf({ layout, trace, source }: Figure, row: number): string | null {
  const place = layout.place(row);
  if (!place) return null;
  if (layout.kindAt(row).role === "weight") return source;
  return trace?.tensors && place.name in trace.tensors ? `/v1/traces/${trace.id}` : null;
}

/** The positions whose values there are at the step of the view; null: all. */
export function positionsShown({ view, figures }: State): number | null {
  const trace = figures[0]?.trace;
  return view.step === null || !trace ? null : trace.tokens.length + Math.max(view.step - 1, 0);
}
