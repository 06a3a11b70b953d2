/** Loads the value and the explanation of the current cell. */

import { isAbort } from "../api/client";
import type { Explanation, Service } from "../api/service";
import type { Detail } from "../detail/detail";
import { reason } from "../i18n/reason";
import { locate } from "../layout/place";
import type { Stage } from "../scene/stage";
import { current, sourceOf, type Figure, type CellInfo } from "../state/state";
import type { Store } from "../state/store";
import type { CellAt } from "../state/view";
import { Formulas } from "./formulas";
import { RequestCache } from "./cache";

const OPERANDS = 64;
const PAUSE = 60; // milliseconds that the pointer rests before a request
const CACHED = 500; // cells

export function explainCells(store: Store, service: Service, stage: Stage, detail: Detail): void {
  const loader = new CellLoader(service);
  let running = new AbortController();
  let timer = 0;

  const update = (): void => {
    running.abort();
    clearTimeout(timer);
    const { state } = store;
    const at = current(state);
    if (!at) return store.dispatch({ type: "cellInfo", cellInfo: null });
    running = new AbortController();
    const { signal } = running;
    const shown = stage.models.shown[at.figure];
    const row = shown?.figure.layout.row(at.block) ?? null;
    const value = !shown || row === null ? undefined : detail.value(shown, row, at.cell);
    const cellInfo: CellInfo = { at, value, explanation: null, formula: null, message: null };
    store.dispatch({ type: "cellInfo", cellInfo });
    timer = window.setTimeout(() => void load(cellInfo, state.figures[at.figure], signal), PAUSE);
  };

  const load = async (cellInfo: CellInfo, figure: Figure | undefined, signal: AbortSignal): Promise<void> => {
    try {
      const answer = figure ? await loader.of(figure, cellInfo.at, signal) : {};
      if (!signal.aborted) store.dispatch({ type: "cellInfo", cellInfo: { ...cellInfo, ...answer } });
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      store.dispatch({ type: "cellInfo", cellInfo: { ...cellInfo, message: reason(error) } });
    }
  };

  store.subscribe(current, update);
  store.subscribe(({ figures }) => figures, update);
}

/** A cache of values, explanations and formulas of cells. */
class CellLoader {
  #formulas: Formulas;
  #explanations = new RequestCache<Explanation>(CACHED);
  #values = new RequestCache<number | null>(CACHED);

  constructor(private readonly service: Service) {
    this.#formulas = new Formulas(service);
  }

  async of(figure: Figure, { block, cell }: CellAt, signal: AbortSignal): Promise<Partial<CellInfo>> {
    const row = figure.layout.row(block);
    if (figure.trace) {
      const { id } = figure.trace;
      const explain = (of: AbortSignal): Promise<Explanation> => this.service.explain(id, block, cell, OPERANDS, of);
      const explained = this.#explanations.get(`${id} ${block} ${cell.join()}`, explain, signal);
      const [explanation, formula] = await Promise.all([explained, row === null ? null : this.#formulas.of(figure.layout, row, signal)]);
      return { explanation, formula, value: explanation.value };
    }
    if (row === null) return {};
    const [place, source] = [figure.layout.place(row), sourceOf(figure, row)];
    if (!place || !source) return { formula: await this.#formulas.of(figure.layout, row, signal) };
    const slice = locate(place.index, cell).join();
    return { value: await this.#values.get(`${source} ${place.name} ${slice}`, (of) => this.service.value(source, place.name, slice, of), signal) };
  }
}
