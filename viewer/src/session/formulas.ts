/**
 * How the cells of blocks are computed. All layers do it alike, except that the first reads the embedding; so do all
 * heads: a few requests answer for every block of a model.
 */

import type { Formula, LayoutFacts, Service } from "../api/service";
import { item } from "../checked/item";
import { filled, numbersIn, shapeOf, type Description } from "../layout/description";
import type { Layout } from "../layout/layout";
import { RequestCache } from "./cache";

export class Formulas {
  #answers = new RequestCache<LayoutFacts>(24);

  constructor(private readonly service: Pick<Service, "layoutFormulas">) {}

  /** Of a block by its row; null for weights. The blocks are its own; the places are those of the first head. */
  async of(layout: Layout, row: number, signal: AbortSignal): Promise<Formula | null> {
    const [own, head, kind] = [item(layout.layer, row), item(layout.head, row), layout.kindAt(row)];
    const beforeLayers = row < item(layout.spans, 0).end;
    const sample = own >= 0 ? Math.min(own, 1) : beforeLayers ? 0 : layout.description.layers() - 1;
    const link = `/v1/layouts/${layout.facts.id}`;
    const { blocks } = await this.#answers.get(`${link} ${sample}`, (of) => this.service.layoutFormulas(link, sample, 0, of), signal);
    const like = filled(kind.id, sample, 0);
    const formula = blocks?.find((block) => block.id === like)?.formula ?? null;
    if (!formula || own < 0) return formula;
    const there = (id: string): string => moved(id, layout.description, own - sample, kind.group === null ? null : { name: kind.group, head });
    return { ...formula, inputs: formula.inputs.map((input) => ({ ...input, block: there(input.block) })) };
  }
}

/**
 * An input of a block of the first head, as it is so many layers later and for another head. Members of a smaller group
 * serve several heads each, the first ones the first: heads of queries that share their keys.
 */
function moved(id: string, description: Description, layers: number, of: { name: string; head: number } | null): string {
  const kind = description.kinds.find((one) => shapeOf(one.id) === shapeOf(id));
  if (!kind || kind.stack === null) return id;
  const [layer, member] = numbersIn(id);
  const same = of === null || kind.group === null ? (member ?? 0) : Math.floor((of.head * description.members(kind.group)) / description.members(of.name));
  return filled(kind.id, (layer ?? 0) + layers, same);
}
