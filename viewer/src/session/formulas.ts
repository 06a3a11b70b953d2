/**
 * How the cells of blocks are computed. All layers do it alike, but that the first reads the embedding; so do all heads:
 * a few questions tell of every block of a model.
 */

import type { Formula, LayoutFacts, Service } from "../api/service";
import type { Layout } from "../layout/layout";
import { Kept } from "./kept";

export class Formulas {
  #kept = new Kept<LayoutFacts>(24);

  constructor(private readonly service: Pick<Service, "layoutFormulas">) {}

  /** Of a block by its row; null for weights. The blocks are its own; the places are those of the first head. */
  async of(layout: Layout, row: number, signal: AbortSignal): Promise<Formula | null> {
    const [own, head, { id }] = [layout.layer[row], layout.head[row], layout.kindAt(row)];
    const asked = own >= 0 ? Math.min(own, 1) : row < layout.spans[0].end ? 0 : layout.config.n_layer - 1;
    const link = `/v1/layouts/${layout.facts.id}`;
    const { blocks } = await this.#kept.get(`${link} ${asked}`, (of) => this.service.layoutFormulas(link, asked, 0, of), signal);
    const like = id.replace("{layer}", String(asked)).replace("{head}", "0");
    const formula = blocks?.find((block) => block.id === like)?.formula ?? null;
    return formula && own >= 0 ? moved(formula, own - asked, head) : formula;
  }
}

/** As it is so many layers later, and in another head if it is of one. */
function moved(formula: Formula, layers: number, head: number): Formula {
  const there = (id: string): string =>
    id.replace(/^blocks\.(\d+)/, (_, layer: string) => `blocks.${Number(layer) + layers}`).replace(/heads\.\d+/, `heads.${Math.max(head, 0)}`);
  return { ...formula, inputs: formula.inputs.map((input) => ({ ...input, block: there(input.block) })) };
}
