/** Readers of a block's values: whole files of small traces and models, whole small tensors, or slices. */

import { present } from "../checked/item";
import type { Service, Trace, Values } from "../api/service";
import { decode } from "../api/numbers";
import type { File } from "../api/safetensors";
import { axesOf, gather, sliceOf, transpose, type Place } from "../layout/place";
import { parametersOf } from "../reading/parameters";
import type { Figure } from "../state/state";
import type { Readable } from "../state/store";
import { count, type Choice } from "./choose";

const SMALL_FILE = 1 << 20; // bytes of a trace that is loaded whole
const SMALL_TENSOR = 1 << 16; // values of a tensor that is loaded whole
const SMALL_MODEL = 1 << 20; // parameters of a model whose weights are loaded whole

export interface Grid {
  values: Float32Array; // row by row
  width: number;
  height: number;
  factors: [number, number]; // cells per value, in x and y
}

export class Sources {
  #files = new Map<string, Promise<File>>();
  #tensors = new Map<string, Promise<Values>>();

  constructor(
    private readonly service: Service,
    store: Readable,
  ) {
    store.subscribe(({ run }) => run.trace, (trace, { models }) => {
      if (!trace) return;
      const parameters = models.find(({ id }) => id === trace.model)?.parameters.total;
      this.#prefetch(`/v1/models/${trace.model}`, parameters ?? Infinity, trace); // if unknown, when the layout is loaded
    });
    store.subscribe(({ figures }) => figures, (figures) => {
      for (const { source, layout, model, trace } of figures) this.#prefetch(source, parametersOf(layout, model), trace);
    });
  }

  /** Requests the files of a small model and trace early, so that its first values come from memory. */
  #prefetch(source: string, parameters: number, trace: Trace | null): void {
    if (parameters <= SMALL_MODEL) void this.#file(source).catch(() => {});
    if (trace?.tensors && sum(trace.tensors) <= SMALL_FILE) void this.#file(`/v1/traces/${trace.id}`).catch(() => {});
  }

  async read(figure: Figure, row: number, source: string, choice: Choice, signal: AbortSignal): Promise<Grid> {
    const place = present(figure.layout.place(row), "the tensor of a block");
    const cells = figure.layout.cellsOf(row);
    const whole = await this.#whole(figure, source, place.name);
    if (!whole) return this.#slice(source, place, choice, signal);
    return { values: gather(whole.values, whole.shape, place.index, cells), width: cells[0], height: cells[1], factors: [1, 1] };
  }

  /** A tensor, if it is small enough to be loaded whole. Never cancelled: other blocks share it. */
  async #whole(figure: Figure, source: string, name: string): Promise<Values | null> {
    const { trace } = figure;
    const tensors = trace?.tensors ?? {};
    const fact = tensors[name];
    const small = fact ? sum(tensors) <= SMALL_FILE : parametersOf(figure.layout, figure.model) <= SMALL_MODEL;
    if (small) return this.#fromFile(source, name);
    if (!fact || fact.shape.reduce((a, b) => a * b, 1) > SMALL_TENSOR) return null;
    return cached(this.#tensors, `${source}/${name}`, 512, () => this.service.values(source, name, {}));
  }

  async #fromFile(source: string, name: string): Promise<Values> {
    const file = await this.#file(source);
    const { dtype, shape } = present(file.entries.get(name), name);
    return { values: decode(file.bytes(name).slice().buffer, dtype), shape, factors: [] };
  }

  #file(source: string): Promise<File> {
    return cached(this.#files, source, 8, () => this.service.file(source));
  }

  async #slice(source: string, { name, index }: Place, { part, factor }: Choice, signal: AbortSignal): Promise<Grid> {
    const axes = axesOf(index);
    const most = count(part, factor); // the slice takes every `factor`th cell, so the server need not reduce it
    const query = { slice: sliceOf(index, part, factor), dtype: "float16", max_cells: String(most) };
    const { values, shape, factors } = await this.service.values(source, name, query, signal);
    const of = (axis: "i" | "j", list: number[], none: number): number => list.at(axes.indexOf(axis) - axes.length) ?? none;
    const [width, height] = [axes.includes("i") ? of("i", shape, 1) : 1, axes.includes("j") ? of("j", shape, 1) : 1];
    const across = axes.includes("i") ? of("i", factors, 1) : 1;
    const down = axes.includes("j") ? of("j", factors, 1) : 1;
    const turned = axes[0] === "i" && axes.length === 2 ? transpose(values, width, height) : values;
    return { values: turned, width, height, factors: [across * factor, down * factor] };
  }
}

function sum(tensors: Record<string, { bytes: number }>): number {
  return Object.values(tensors).reduce((total, { bytes }) => total + bytes, 0);
}

/** The cached value of a key, or that of `make`; at most `most` are cached, and no failed ones. */
function cached<T>(cache: Map<string, Promise<T>>, key: string, most: number, make: () => Promise<T>): Promise<T> {
  const known = cache.get(key);
  if (known) return known;
  const made = make();
  cache.set(key, made);
  made.catch(() => cache.delete(key));
  const [oldest] = cache.keys();
  if (cache.size > most && oldest !== undefined) cache.delete(oldest);
  return made;
}
