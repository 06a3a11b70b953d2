/** Actions and their reducer. */

import type { Trouble } from "../api/client";
import type { Model } from "../api/service";
import { play, type Command } from "./player";
import { stepsOf } from "./steps";
import type { Figure, Highlight, Run, State, CellInfo, Traffic } from "./state";
import type { Camera, CellAt, View } from "./view";

export type Action =
  | { type: "view"; change: Partial<View> } // change a setting
  | { type: "show"; change: Partial<View> } // show another model or prompt: resets camera, step and cells
  | { type: "camera"; to: Camera | null } // fly; null: show everything
  | { type: "hover"; at: CellAt | null }
  | { type: "pin"; at: CellAt } // pin this cell alone
  | { type: "follow"; at: CellAt } // pin an operand; `back` returns
  | { type: "move"; at: CellAt } // pin a neighbour instead of the last pinned cell
  | { type: "back" }
  | { type: "clear" }
  | { type: "cellInfo"; cellInfo: CellInfo | null }
  | { type: "highlight"; highlight: Highlight | null }
  | { type: "tour"; command: Command }
  | { type: "models"; models: Model[] }
  | { type: "figures"; figures: Figure[] }
  | { type: "run"; run: Partial<Run> }
  | { type: "traffic"; traffic: Partial<Traffic> }
  | { type: "trouble"; trouble: Trouble | null }
  | { type: "graphics"; graphics: State["graphics"] }
  | { type: "viewport"; width: number; height: number };

export function reduce(state: State, action: Action): State {
  const next = changed(state, action);
  const { view, figures } = next;
  const unknown = view.tour !== null && figures.length > 0 && (view.tour !== state.view.tour || figures !== state.figures) && !stepsOf(figures).some(({ id }) => id === view.tour);
  return unknown ? { ...next, view: { ...view, tour: null } } : next; // a link may contain a step of another model
}

function changed(state: State, action: Action): State {
  const { view } = state;
  const viewed = (change: Partial<View>): State => ({ ...state, view: { ...view, ...change } });
  switch (action.type) {
    case "view":
      return viewed(action.change);
    case "show": {
      const rest = "model" in action.change || "beside" in action.change ? { camera: null } : {};
      return { ...viewed({ pinned: [], step: null, ...rest, ...action.change }), hovered: null, cellInfo: null, highlight: null };
    }
    case "camera":
      return viewed({ camera: action.to });
    case "hover":
      return same(state.hovered, action.at) ? state : { ...state, hovered: action.at };
    case "pin":
      return viewed({ pinned: [action.at] });
    case "follow":
      return viewed({ pinned: [...view.pinned, action.at] });
    case "move":
      return viewed({ pinned: [...view.pinned.slice(0, -1), action.at] });
    case "back":
      return viewed({ pinned: view.pinned.slice(0, -1) });
    case "clear":
      return { ...viewed({ pinned: [] }), highlight: null };
    case "cellInfo":
      return { ...state, cellInfo: action.cellInfo };
    case "highlight":
      return { ...state, highlight: action.highlight };
    case "tour": {
      const { step, player } = play({ step: view.tour, player: state.player }, action.command, stepsOf(state.figures));
      return { ...(step === view.tour ? state : viewed({ tour: step })), player };
    }
    case "models":
      return { ...state, models: action.models };
    case "figures":
      return { ...state, figures: action.figures };
    case "run":
      return { ...state, run: { ...state.run, ...action.run } };
    case "traffic":
      return { ...state, traffic: { ...state.traffic, ...action.traffic } };
    case "trouble":
      return { ...state, trouble: action.trouble };
    case "graphics":
      return { ...state, graphics: action.graphics };
    case "viewport":
      return { ...state, viewport: { width: action.width, height: action.height } };
  }
}

export function same(a: CellAt | null, b: CellAt | null): boolean {
  return a === b || (a !== null && b !== null && a.figure === b.figure && a.block === b.block && a.cell.join() === b.cell.join());
}
