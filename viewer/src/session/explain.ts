/** Tells what is known of the cell in question: its value, and how it was computed. */

import { isAbort, Refused } from "../api/client";
import type { Service } from "../api/service";
import type { Detail } from "../detail/detail";
import { locate } from "../layout/place";
import type { Stage } from "../scene/stage";
import { current, sourceOf, type Told } from "../state/state";
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
    const told: Told = { at, value, explanation: null, message: null };
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
    const place = row === null ? null : of.layout.place(row);
    const source = place && sourceOf(of, row!);
    if (!place || !source) return {};
    return { value: await service.value(source, place.name, locate(place.index, cell).join(), signal) };
  };

  store.subscribe(current, look);
  store.subscribe(({ figures }) => figures, look);
}
