/** Loads a model: its trace, its layout, and under which path its weights are. */

import type { Service, Model, ModelRef, Trace, LayoutFacts } from "../api/service";
import { Layout } from "../layout/layout";
import type { Figure } from "../state/state";

/** The layout behind a link, where it is done or as soon as it is. */
export async function loadLayout(service: Service, facts: LayoutFacts, signal?: AbortSignal): Promise<Layout> {
  const link = `/v1/layouts/${facts.id}`;
  const { n_layer, n_head } = facts.config;
  const ends = n_layer > 1 ? [0, n_layer - 1] : [0];
  const [file, ...described] = await Promise.all([
    service.layoutColumns(link, signal),
    ...ends.map((layer) => service.layoutTensors(link, layer, Math.min(n_head, 2), signal)),
  ]);
  return Layout.read({ ...described[0], ...facts }, file, described);
}

/** Layouts are kept: the same blocks, whatever their values. */
export class Layouts {
  #kept = new Map<string, Promise<Layout>>();

  constructor(private readonly service: Service) {}

  async of(ref: ModelRef, tokens: number | null, signal?: AbortSignal): Promise<Layout> {
    const facts = await this.service.askLayout(ref, tokens, signal);
    const kept = this.#kept.get(facts.id);
    if (kept) return kept;
    const loading = loadLayout(this.service, facts, signal);
    this.#kept.set(facts.id, loading);
    loading.catch(() => this.#kept.delete(facts.id));
    if (this.#kept.size > 8) this.#kept.delete(this.#kept.keys().next().value!);
    return loading;
  }
}

export function figure(ref: ModelRef, layout: Layout, trace: Trace | null, models: Model[]): Figure {
  const id = typeof ref === "string" ? ref : layout.facts.model;
  const model = models.find((known) => known.id === id) ?? null;
  const source = id === null ? null : `/v1/models/${id}`;
  return { ref, model, layout, trace, source };
}
