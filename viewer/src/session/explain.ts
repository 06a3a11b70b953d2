/** Tells what is known of the cell in question: its value, and how it was or would be computed. */

import { isAbort, Refused } from "../api/client";
import type { Formula, Service } from "../api/service";
import type { Detail } from "../detail/detail";
import { locate } from "../layout/place";
import type { Stage } from "../scene/stage";
import { current, sourceOf, type Figure, type Told } from "../state/state";
import type { Store } from "../state/store";
import type { CellAt } from "../state/view";

const OPERANDS = 64;
const PAUSE = 60; // milliseconds that the pointer rests before the server is asked

export function explainCells(store: Store, service: Service, stage: Stage, detail: Detail): void {
  let running = new AbortController();
  let timer = 0;

  const look = (): void => {
    running.abort();
    clearTimeout(timer);
    const { state } = store;
    const at = current(state);
    if (!at) return store.dispatch({ type: "told", told: null });
    running = new AbortController();
    const { signal } = running;
    const shown = stage.models.shown[at.figure];
    const row = shown?.figure.layout.row(at.block) ?? null;
    const value = row === null ? undefined : detail.value(shown, row, at.cell);
    const told: Told = { at, value, explanation: null, formula: null, message: null };
    store.dispatch({ type: "told", told });
    timer = window.setTimeout(() => void ask(told, signal), PAUSE);
  };

  const ask = async (told: Told, signal: AbortSignal): Promise<void> => {
    try {
      store.dispatch({ type: "told", told: { ...told, ...(await answer(told.at, signal)) } });
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      const message = error instanceof Refused ? error.message : String(error);
      store.dispatch({ type: "told", told: { ...told, message } });
    }
  };

  const answer = async ({ figure, block, cell }: CellAt, signal: AbortSignal): Promise<Partial<Told>> => {
    const of = store.state.figures[figure];
    if (of?.trace) {
      const explanation = await service.explain(of.trace.id, block, cell, OPERANDS, signal);
      return { explanation, value: explanation.value };
    }
    const row = of?.layout.row(block) ?? null;
    if (row === null) return {};
    const [place, source] = [of.layout.place(row), sourceOf(of, row)];
    if (!place || !source) return { formula: await formulaOf(of, row, block, signal) };
    return { value: await service.value(source, place.name, locate(place.index, cell).join(), signal) };
  };

  const formulaOf = async ({ layout }: Figure, row: number, block: string, signal: AbortSignal): Promise<Formula | null> => {
    const layer = layout.layer[row] >= 0 ? layout.layer[row] : row < layout.spans[0].end ? 0 : layout.config.n_layer - 1;
    const { blocks } = await service.layoutFormulas(`/v1/layouts/${layout.facts.id}`, layer, Math.max(layout.head[row], 0), signal);
    return blocks?.find(({ id }) => id === block)?.formula ?? null;
  };

  store.subscribe(current, look);
  store.subscribe(({ figures }) => figures, look);
}
