/** Arrow keys: move the pinned cell to its neighbours on the screen. */

import { pointOf, type Point } from "../layout/box";
import type { Shown } from "../scene/models";
import type { Stage } from "../scene/stage";
import type { Store } from "../state/store";
import type { CellAt } from "../state/view";

export interface Place {
  x: number; // to the right on the screen
  y: number; // downwards
}

type Cell = CellAt["cell"];

const ARROWS: Record<string, Place> = {
  ArrowLeft: { x: -1, y: 0 }, ArrowRight: { x: 1, y: 0 }, ArrowUp: { x: 0, y: -1 }, ArrowDown: { x: 0, y: 1 },
};
const STEPS = [[1, 0], [-1, 0], [0, 1], [0, -1]] as const; // to neighbouring cells
const EDGE = 20; // pixels from the window's edge at which the camera follows
const OWN_KEYS = "input, textarea, select, dialog"; // elements that handle the arrows themselves

/** The neighbour of a cell in a direction on the screen; at the block's edge, the cell itself. */
export function neighbour(cell: Cell, [width, height]: Cell, arrow: Place, project: (cell: Cell) => Place): Cell {
  const from = project(cell);
  let [best, found] = [0, cell];
  for (const [di, dj] of STEPS) {
    const to: Cell = [cell[0] + di, cell[1] + dj, cell[2]];
    const { x, y } = project(to);
    const [dx, dy] = [x - from.x, y - from.y];
    const along = (dx * arrow.x + dy * arrow.y) / (Math.hypot(dx, dy) || 1);
    if (along > best + 1e-9) [best, found] = [along, to];
  }
  const within = found[0] >= 0 && found[1] >= 0 && found[0] < width && found[1] < height;
  return within ? found : cell;
}

export function watchArrows(stage: Stage, store: Store): void {
  document.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    const at = store.state.view.pinned.at(-1);
    if (!arrow || !at || event.defaultPrevented || isHandled(event, store, stage)) return;
    const shown = stage.models.shown[at.figure];
    const row = shown?.figure.layout.row(at.block) ?? null;
    if (!shown || row === null) return;
    event.preventDefault();
    const place = (cell: Cell): Place => stage.project(middle(shown, row, cell));
    const cell = neighbour(at.cell, shown.figure.layout.cellsOf(row), arrow, place);
    if (cell === at.cell) return;
    store.dispatch({ type: "move", at: { ...at, cell } });
    if (!inWindow(place(cell), store)) follow(stage, store, middle(shown, row, at.cell), middle(shown, row, cell));
  });
}

/** Whether the focused element or the tour handles this key. */
function isHandled({ target, altKey, ctrlKey, metaKey, shiftKey }: KeyboardEvent, { state }: Store, { canvas }: Stage): boolean {
  if (altKey || ctrlKey || metaKey || shiftKey || (state.view.tour !== null && target !== canvas)) return true;
  return target instanceof Element && target.closest(OWN_KEYS) !== null;
}

/** The middle of a cell in the scene; the cell may be beyond the block's edge. */
function middle({ figure, pose, layoutCell: side }: Shown, row: number, [i, j]: Cell): [number, number, number] {
  const { min, max } = figure.layout.box(row);
  return pose.point([min[0] + (i + 0.5) * side, min[1] + (j + 0.5) * side, max[2]]);
}

function inWindow({ x, y }: Place, { state }: Store): boolean {
  const { width, height } = state.viewport;
  return x > EDGE && y > EDGE && x < width - EDGE && y < height - EDGE;
}

/** Moves the camera along with the cell, which stays at its place on the screen. */
function follow({ camera }: Stage, store: Store, from: Point, to: Point): void {
  const target = pointOf((axis) => camera.target[axis] + to[axis] - from[axis]);
  store.dispatch({ type: "camera", to: { ...camera, target } });
}
