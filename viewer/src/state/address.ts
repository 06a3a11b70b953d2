/** Conversion of the view to and from an address fragment; invalid values become defaults. */

import type { ModelRef } from "../api/service";
import type { Flow } from "../layout/pose";
import { INITIAL, type Camera, type CellAt, type View } from "./view";

const FLOWS: readonly Flow[] = ["right", "down"];
const DIGITS = 5; // of a camera's numbers

/** The view as a fragment without its defaults: "" for the initial view. */
export function toHash(view: View): string {
  const params = new URLSearchParams();
  const put = (key: string, value: unknown, usual: unknown, text: string): void => {
    if (JSON.stringify(value) !== JSON.stringify(usual)) params.set(key, text);
  };
  const { generate: g, colour: c } = view;
  put("model", view.model, INITIAL.model, refText(view.model));
  put("traced", view.traced, true, "0");
  if ("text" in view.prompt) put("text", view.prompt, INITIAL.prompt, view.prompt.text);
  else params.set("ids", view.prompt.tokens.join());
  for (const key of ["max_new_tokens", "temperature", "top_k", "top_p", "seed"] as const)
    put(key, g[key], INITIAL.generate[key], String(g[key] ?? ""));
  put("tokens", view.tokens, null, String(view.tokens));
  put("beside", view.beside, [], view.beside.map(refText).join(";"));
  put("flow", view.flow, null, String(view.flow));
  if (view.camera) params.set("camera", cameraText(view.camera));
  put("cell", view.pinned, [], view.pinned.map(cellText).join(";"));
  put("step", view.step, null, String(view.step));
  put("tour", view.tour, null, String(view.tour));
  put("scale", c.scale, INITIAL.colour.scale, c.scale);
  put("palette", c.palette, INITIAL.colour.palette, c.palette);
  put("gain", c.gain, INITIAL.colour.gain, String(c.gain));
  put("range", c.range, null, String(c.range));
  put("aid", view.aid, null, view.aid || "none");
  put("head", view.head, null, String(view.head));
  put("lang", view.language, null, String(view.language));
  return params.toString();
}

export function fromHash(hash: string): View {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const number = <T extends number | null>(key: string, usual: T): number | T => {
    const text = params.get(key);
    return text === null || text === "" || !Number.isFinite(Number(text)) ? usual : Number(text);
  };
  const oneOf = <T extends string, U>(key: string, allowed: readonly T[], usual: U): T | U =>
    allowed.find((value) => value === params.get(key)) ?? usual;
  const ids = params.get("ids");
  return {
    model: refOf(params.get("model") ?? "") ?? INITIAL.model,
    traced: params.get("traced") !== "0",
    prompt: ids === null ? promptOf(params.get("text")) : { tokens: wholes(ids) },
    generate: {
      max_new_tokens: number("max_new_tokens", INITIAL.generate.max_new_tokens),
      temperature: number("temperature", 0),
      top_k: number("top_k", null),
      top_p: number("top_p", null),
      seed: number("seed", 0),
    },
    tokens: number("tokens", null),
    beside: (params.get("beside") ?? "").split(";").map(refOf).filter((ref) => ref !== null),
    flow: oneOf("flow", FLOWS, null),
    camera: cameraOf(params.get("camera")),
    pinned: (params.get("cell") ?? "").split(";").map(cellOf).filter((cell) => cell !== null),
    step: number("step", null),
    tour: /^\w+$/.exec(params.get("tour") ?? "")?.[0] ?? null, // checked against the model's steps once it is loaded
    colour: {
      scale: oneOf("scale", ["linear", "log"], INITIAL.colour.scale),
      palette: oneOf("palette", ["classic", "safe"], INITIAL.colour.palette),
      gain: number("gain", INITIAL.colour.gain),
      range: rangeOf(number("range", null)),
    },
    aid: params.get("aid") === "none" ? "" : params.get("aid"),
    head: headOf(params.get("head")),
    language: params.get("lang"),
  };
}

function rangeOf(range: number | null): number | null {
  return range !== null && range > 0 ? range : null;
}

function headOf(text: string | null): View["head"] {
  const [layer = NaN, head = NaN, ...rest] = (text ?? "").split(",").map(Number);
  return text && !rest.length && [layer, head].every(Number.isInteger) && layer >= -1 && head >= 0 ? [layer, head] : null;
}

function promptOf(text: string | null): View["prompt"] {
  return text === null ? INITIAL.prompt : { text };
}

function wholes(text: string): number[] {
  return text.split(",").map(Number).filter((id) => Number.isInteger(id) && id >= 0);
}

/** A model's id, or its configuration as n_layer:12,n_embd:768. */
export function refText(ref: ModelRef): string {
  if (typeof ref === "string") return ref;
  return Object.entries(ref).map(([name, value]) => `${name}:${String(value)}`).join();
}

function refOf(text: string): ModelRef | null {
  if (!text.includes(":")) return text || null;
  const sizes = text.split(",").map((pair) => pair.split(":"));
  return Object.fromEntries(sizes.map(([name = "", value = ""]) => [name, sizeOf(value)]));
}

function sizeOf(text: string): unknown {
  if (text === "true" || text === "false") return text === "true";
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

function cameraText({ target, distance, azimuth, elevation }: Camera): string {
  return [...target, distance, azimuth, elevation].map((n) => String(Number(n.toPrecision(DIGITS)))).join();
}

function cameraOf(text: string | null): Camera | null {
  const [x = NaN, y = NaN, z = NaN, distance = NaN, azimuth = NaN, elevation = NaN, ...rest] = (text ?? "").split(",").map(Number);
  const camera: Camera = { target: [x, y, z], distance, azimuth, elevation };
  return rest.length || ![x, y, z, distance, azimuth, elevation].every(Number.isFinite) || distance <= 0 ? null : camera;
}

function cellText({ figure, block, cell }: CellAt): string {
  return `${figure},${block},${cell.join()}`;
}

function cellOf(text: string): CellAt | null {
  const [figure, block = "", ...cell] = text.split(",");
  const [i = NaN, j = NaN, k = NaN] = cell.map(Number);
  return cell.length === 3 && [Number(figure), i, j, k].every(Number.isInteger) ? { figure: Number(figure), block, cell: [i, j, k] } : null;
}
