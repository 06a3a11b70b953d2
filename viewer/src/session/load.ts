/** Loads layouts, and makes the figures of models from them. */

import { present } from "../checked/item";
import type { Config, Service, Model, ModelRef, Trace } from "../api/service";
import { samplesOf } from "../layout/gpt2";
import { Layout } from "../layout/layout";
import type { Figure } from "../state/state";

/** The layout behind a link, of a model of this configuration, as soon as it is done. */
async function loadLayout(service: Service, link: string, config: Config, signal?: AbortSignal): Promise<Layout> {
  const { first, last, heads } = samplesOf(config);
  const [file, facts, ...more] = await Promise.all([
    service.layoutColumns(link, signal),
    service.layoutTensors(link, first, heads, signal),
    ...(last === first ? [] : [service.layoutTensors(link, last, heads, signal)]),
  ]);
  return Layout.read(facts, file, [facts, ...more]);
}

const MOST = 8; // layouts in the cache

/** A cache of layouts: traces of the same size share one. */
export class Layouts {
  #layouts = new Map<string, Promise<Layout>>();

  constructor(private readonly service: Service) {}

  async of(ref: ModelRef, tokens: number | null, signal?: AbortSignal): Promise<Layout> {
    const { id, config } = await this.service.askLayout(ref, tokens, signal);
    return this.at(`/v1/layouts/${id}`, config, signal);
  }

  /** The layout that a finished trace links to. */
  at(link: string, config: Config, signal?: AbortSignal): Promise<Layout> {
    const known = this.#layouts.get(link);
    if (known) return known;
    const loading = loadLayout(this.service, link, config, signal);
    this.#layouts.set(link, loading);
    loading.catch(() => this.#layouts.delete(link));
    const [oldest] = this.#layouts.keys();
    if (this.#layouts.size > MOST && oldest !== undefined) this.#layouts.delete(oldest);
    return loading;
  }
}

export function figure(ref: ModelRef, layout: Layout, trace: Trace | null, models: Model[]): Figure {
  const id = typeof ref === "string" ? ref : present(layout.facts.model, "the id of the model"); // custom sizes have an id, too
  const model = models.find((known) => known.id === id) ?? null;
  return { ref, model, layout, trace, source: `/v1/models/${id}` };
}
