/** The steps of the tour. Their texts are in locales/tour.*.json or come from the API. */

import type { Description, Part } from "../layout/description";
import type { Figure } from "./state";

/** Angles of the camera, in radians, for flow to the right. */
export interface Side {
  azimuth: number;
  elevation: number;
}

/** A step; kinds are id patterns, as in a description. */
export interface TourStep {
  id: string; // the key of its texts, and its name in links
  name: string; // the API's English title, if locales have none
  text: string; // the API's English text
  seconds: number; // at normal speed
  formula: string; // the same in every language; _ makes the next word a subscript
  kinds: readonly string[]; // computed in this step; the cells of the first one are animated
  from: readonly string[]; // that these are computed from
  side?: Side; // where the camera looks from
  at?: "chosen"; // the camera aims at the chosen token
  moves?: "layers" | "tokens"; // the animation: layer by layer, or token by token
}

const FRONT = { azimuth: -0.1, elevation: 0.08 };
const BEFORE = { azimuth: -0.8, elevation: 0.25 }; // shows the blocks behind as well
const AFTER = { azimuth: 0.45, elevation: 0.25 }; // keeps the inputs from hiding the result
const SIDES: Partial<Record<Part, Side>> = { query: BEFORE, scores: AFTER, mixed: AFTER, attention_out: AFTER };

const USUAL = 12; // seconds of a step
const SECONDS: Record<string, number> = { tokens: 9, norm: 13, qkv: 15, scores: 14, softmax: 13, mlp: 13, activation: 10, last: 10 };

const plain = { name: "", text: "", formula: "", kinds: [], from: [] };
const START: TourStep = { ...plain, id: "start", seconds: 11 };
const LAYERS: TourStep = { ...plain, id: "layers", seconds: 12, formula: "x_0 → x_1 → … → x_{layers}", moves: "layers" };
const AGAIN: TourStep = { ...plain, id: "again", seconds: 14, formula: "tokens ← tokens + next", moves: "tokens" };

const BEFORE_A_MODEL = [START];
const made = new WeakMap<Description, readonly TourStep[]>();

/** The steps of the tour through the main model; only the first step before it is loaded. */
export function stepsOf(figures: readonly Pick<Figure, "layout">[]): readonly TourStep[] {
  const description = figures[0]?.layout.description;
  if (!description) return BEFORE_A_MODEL;
  const known = made.get(description) ?? tourOf(description);
  made.set(description, known);
  return known;
}

/** The steps of the computation, and general ones about the layers and the output. */
export function tourOf(description: Description): readonly TourStep[] {
  const { kinds, steps } = description;
  const probs = description.part("probs");
  const shown = steps.map(({ id, name, text, formula, kinds: computed, from }): TourStep => {
    const first = kinds.find((kind) => kind.id === computed[0])?.part ?? null;
    const step = { id, name, text, formula, kinds: computed, from, seconds: SECONDS[id] ?? USUAL, side: (first && SIDES[first]) ?? FRONT };
    return first === "probs" ? { ...step, at: "chosen" } : step;
  });
  const afterLayers = steps.map(({ kinds: computed }) => computed.some((pattern) => pattern.includes("{layer}"))).lastIndexOf(true) + 1;
  if (afterLayers > 0) shown.splice(afterLayers, 0, LAYERS);
  if (!probs) return [START, ...shown];
  const choose: TourStep = { ...plain, id: "choose", seconds: USUAL, formula: "next = argmax p", from: [probs.id], side: FRONT, at: "chosen" };
  return [START, ...shown, choose, AGAIN];
}

export function stepOf(id: string | null, figures: readonly Pick<Figure, "layout">[]): TourStep | null {
  return stepsOf(figures).find((step) => step.id === id) ?? null;
}
