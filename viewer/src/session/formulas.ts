/**
 * The formulas of blocks. They are the same in all layers, except that the first reads the embedding, and in all heads:
 * a few requests cover every block of a model.
 */

import type { Formula, LayoutFacts, Service } from "../api/service";
import { item } from "../checked/item";
import { filled, numbersIn, shapeOf, type Description } from "../layout/description";
import type { Layout } from "../layout/layout";
import { RequestCache } from "./cache";

export class Formulas {
  #responses = new RequestCache<LayoutFacts>(24);

  constructor(private readonly service: Pick<Service, "layoutFormulas">) {}

  /** The formula of a block, with the inputs of its own layer and head; null for weights. Indices are those of head 0. */
  async of(layout: Layout, row: number, signal: AbortSignal): Promise<Formula | null> {
    const [own, head, kind] = [item(layout.layer, row), item(layout.head, row), layout.kindAt(row)];
    const beforeLayers = row < item(layout.spans, 0).end;
    const sample = own >= 0 ? Math.min(own, 1) : beforeLayers ? 0 : layout.description.layers() - 1;
    const link = `/v1/layouts/${layout.facts.id}`;
    const { blocks } = await this.#responses.get(`${link} ${sample}`, (of) => this.service.layoutFormulas(link, sample, 0, of), signal);
    const like = filled(kind.id, sample, 0);
    const formula = blocks?.find((block) => block.id === like)?.formula ?? null;
    if (!formula || own < 0) return formula;
    const blockThere = (id: string): string => shifted(id, layout.description, own - sample, kind.group === null ? null : { name: kind.group, head });
    return { ...formula, inputs: formula.inputs.map((input) => ({ ...input, block: blockThere(input.block) })) };
  }
}

/**
 * An input of a block of head 0, moved by some layers and to another head. Each member of a smaller group serves
 * consecutive heads, as key/value heads serve query heads.
 */
function shifted(id: string, description: Description, layers: number, of: { name: string; head: number } | null): string {
  const kind = description.kinds.find((one) => shapeOf(one.id) === shapeOf(id));
  if (!kind || kind.stack === null) return id;
  const [layer, member] = numbersIn(id);
  const same = of === null || kind.group === null ? (member ?? 0) : Math.floor((of.head * description.members(kind.group)) / description.members(of.name));
  return filled(kind.id, (layer ?? 0) + layers, same);
}
