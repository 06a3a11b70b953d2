/** All that the page knows: the view, what was loaded for it, and what the pointer is at. */

import type { Trouble } from "../api/client";
import type { Progress } from "../api/events";
import type { Explanation, Formula, Model, ModelRef, Trace } from "../api/service";
import type { Layout } from "../layout/layout";
import { STOPPED, type Player } from "./player";
import type { CellAt, View } from "./view";

/** A model that is shown. */
export interface Figure {
  ref: ModelRef;
  model: Model | null; // null for a size of one's own
  layout: Layout;
  trace: Trace | null; // finished; null where there are no values
  source: string; // the path under which its weights can be read
}

export interface Run {
  status: "idle" | "asking" | "queued" | "running" | "done" | "failed";
  progress: Progress | null;
  position: number | null; // in the queue
  trace: Trace | null; // as it stood when it was asked for
  message: string | null; // what was refused or failed, in the server's words
}

/** Cells of a block in a line, or one alone. */
export interface Bar extends CellAt {
  to?: CellAt["cell"]; // the last of them
}

/** What a panel or the tour speaks of. */
export interface Highlight {
  figure?: number; // whose blocks they are; the main one's, if it is not said
  blocks: readonly string[]; // framed, and filled as far as they are computed
  lit?: readonly string[]; // further ones that do not step back
  cells: Bar[];
  dim: boolean; // whether all else steps back
  reveal: number; // 0…1: how much of the blocks' cells is computed already
}

/** What is known of a cell. */
export interface Told {
  at: CellAt;
  value: number | null | undefined; // null: −∞; undefined: not known yet
  explanation: Explanation | null;
  formula: Formula | null; // how such cells are computed, where this one is not
  message: string | null; // why there is no explanation
}

/** What is being fetched. */
export interface Traffic {
  running: string[];
  waiting: number;
  bytes: number; // since the page was opened
}

export interface State {
  view: View;
  models: Model[];
  figures: Figure[]; // the main one first; [] until it is there
  run: Run;
  hovered: CellAt | null;
  told: Told | null; // of the pinned cell, or else of that under the pointer
  highlight: Highlight | null;
  player: Player; // of the tour, whose step is in the view
  traffic: Traffic;
  trouble: Trouble | null;
  graphics: "missing" | "lost" | null; // why there is no picture: no WebGL 2 here, or for the moment
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
    told: null,
    highlight: null,
    player: STOPPED,
    traffic: { running: [], waiting: 0, bytes: 0 },
    trouble: null,
    graphics: null,
    viewport: { width: 1, height: 1 },
  };
}

/** The cell that is spoken of. */
export function current(state: State): CellAt | null {
  return state.view.pinned.at(-1) ?? state.hovered;
}

/** The path under which the values of a block of a figure are read; null where nobody has them. */
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
