/** The view: the part of the state that links contain, as plain JSON. */

import type { ModelRef } from "../api/service";
import type { Flow } from "../layout/pose";

/** A camera in orbit around `target`, in scene coordinates; angles in radians, 0 from the front and level. */
export interface Camera {
  target: [number, number, number];
  distance: number;
  azimuth: number;
  elevation: number;
}

/** A cell of a block; `figure` is the index of the model, 0 the main one. */
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
  palette: "classic" | "safe"; // safe: colour-blind safe
  gain: number; // multiplies the brightness
  range: number | null; // the value for full brightness; null: each block's largest value
}

export interface View {
  model: ModelRef;
  traced: boolean; // whether to run the model; if not, only its shape and weights are shown
  prompt: Prompt;
  generate: Generate;
  tokens: number | null; // the length of a layout without a trace; null: the model's maximum
  beside: ModelRef[]; // further models, drawn to scale
  flow: Flow | null; // the direction of the computation; null: along the longer side of the window
  camera: Camera | null; // null: the whole model
  pinned: CellAt[]; // the current cell is the last; `back` returns to those before
  step: number | null; // the number of tokens generated so far; null: all
  tour: string | null; // the step of the tour; null: not started
  colour: Colour;
  aid: string | null; // the open reading aid; "": none; null: the first one if there is room
  head: [number, number] | null; // the layer (-1: all, as rollout) and the head shown by the attention panel
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
