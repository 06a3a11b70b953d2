/** The view: the state that a link restores. Plain JSON. */

import type { ModelRef } from "../api/service";
import type { Flow } from "../layout/pose";

/** An orbit around `target`, in the scene's coordinates; angles in radians, from the front and from level. */
export interface Camera {
  target: [number, number, number];
  distance: number;
  azimuth: number;
  elevation: number;
}

/** A cell of a block of one of the models that are shown: 0 is the main one. */
export interface CellAt {
  figure: number;
  block: string;
  cell: [number, number, number];
}

export interface Generate {
  max_new_tokens: number;
  temperature: number;
  top_k: number | null;
  top_p: number | null;
  seed: number;
}

export type Prompt = { text: string } | { tokens: number[] };

export interface Colour {
  scale: "linear" | "log";
  palette: "classic" | "safe"; // safe: for every kind of colour vision
  gain: number; // above 1, smaller values become bright
  range: number | null; // the value for full brightness; null: each block's largest value
}

export interface View {
  model: ModelRef;
  traced: boolean; // whether the model is run; otherwise only its shape and weights are shown
  prompt: Prompt;
  generate: Generate;
  tokens: number | null; // of a layout without a trace; null: as many as the model has positions
  beside: ModelRef[]; // further models, to scale
  flow: Flow | null; // where the computation goes; null: as the window is wide or high
  camera: Camera | null; // null: the whole model
  pinned: CellAt[]; // the current cell is the last; it was reached from those before
  step: number | null; // tokens that were generated so far; null: all
  tour: string | null; // the step of the tour; null: not started
  colour: Colour;
  aid: string | null; // the reading aid that is open, "": none; null: one where there is room
  head: [number, number] | null; // the layer (-1: all of them together) and the head whose attention is read
  language: string | null; // null: the browser's
}

export const NANO: Pick<View, "model" | "traced" | "prompt" | "generate"> = {
  model: "nano-gpt",
  traced: true,
  prompt: { text: "CBABBC" },
  generate: { max_new_tokens: 6, temperature: 0, top_k: null, top_p: null, seed: 0 },
};

export const INITIAL: View = {
  ...NANO,
  tokens: null,
  beside: [],
  flow: null,
  camera: null,
  pinned: [],
  step: null,
  tour: null,
  colour: { scale: "linear", palette: "classic", gain: 1, range: null },
  aid: null,
  head: null,
  language: null,
};
