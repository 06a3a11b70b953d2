/** Loads layouts and creates figures from them. */

import { present } from "../checked/item";
import type { Service, Model, ModelRef, Trace } from "../api/service";
import { Layout, describedIn } from "../layout/layout";
import type { Figure } from "../state/state";

/** Loads the layout of a link once it is done. Its file determines the layers and heads to sample. */
async function loadLayout(service: Service, link: string, signal?: AbortSignal): Promise<Layout> {
  const file = await service.layoutColumns(link, signal);
  const description = describedIn(file);
  const [last, heads] = [description.layers() - 1, description.sampledHeads];
  const [facts, ...more] = await Promise.all([
    service.layoutTensors(link, 0, heads, signal),
    ...(last > 0 ? [service.layoutTensors(link, last, heads, signal)] : []),
  ]);
  return Layout.read(facts, description, file, [facts, ...more]);
}

const MOST = 8; // layouts in the cache

/** A cache of layouts: traces of the same model and size share one. */
export class Layouts {
  #layouts = new Map<string, Promise<Layout>>();

  constructor(private readonly service: Service) {}

  async of(ref: ModelRef, tokens: number | null, signal?: AbortSignal): Promise<Layout> {
    const { id } = await this.service.createLayout(ref, tokens, signal);
    return this.at(`/v1/layouts/${id}`, signal);
  }

  /** The layout that a finished trace links to. */
  at(link: string, signal?: AbortSignal): Promise<Layout> {
    const known = this.#layouts.get(link);
    if (known) return known;
    const loading = loadLayout(this.service, link, signal);
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
