/** Loads the models, traces and layouts of the view. */

import { isAbort } from "../api/client";
import type { Service, Trace, TraceRequest } from "../api/service";
import { reason } from "../i18n/reason";
import { IDLE, type Figure } from "../state/state";
import type { Store } from "../state/store";
import type { View } from "../state/view";
import { Layouts, figure } from "./load";

const WAIT = 2; // seconds: most traces are done by then

interface Shown {
  main: Figure | null;
  others: Figure[];
}

export class Session {
  #layouts: Layouts;
  #main = new AbortController();
  #others = new AbortController();
  #figures: Shown = { main: null, others: [] };

  constructor(
    private readonly service: Service,
    private readonly store: Store,
  ) {
    this.#layouts = new Layouts(service);
  }

  start(): void {
    void this.#models();
    this.store.subscribe(({ view }) => mainKey(view), () => void this.#loadMain());
    this.store.subscribe(({ view }) => JSON.stringify(view.beside), () => void this.#loadOthers());
  }

  async #models(): Promise<void> {
    const { models } = await this.service.models();
    this.store.dispatch({ type: "models", models });
    const refreshed = (f: Figure): Figure => figure(f.ref, f.layout, f.trace, models);
    const { main, others } = this.#figures;
    this.#show({ main: main && refreshed(main), others: others.map(refreshed) });
  }

  #show(change: Partial<Shown>): void {
    const { main, others } = (this.#figures = { ...this.#figures, ...change });
    this.store.dispatch({ type: "figures", figures: main ? [main, ...others] : [] });
  }

  async #loadMain(): Promise<void> {
    this.#main.abort();
    this.#main = new AbortController();
    const { signal } = this.#main;
    this.store.dispatch({ type: "run", run: { ...IDLE, status: "submitting" } });
    try {
      if (this.store.state.view.traced) await this.#loadTraced(signal);
      else await this.#showMain(null, this.store.state.view.tokens, signal);
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      this.store.dispatch({ type: "run", run: { status: "failed", message: reason(error) } });
    }
  }

  async #loadTraced(signal: AbortSignal): Promise<void> {
    const { model, prompt, generate } = this.store.state.view;
    const request: TraceRequest = { model, ...prompt };
    if (generate.max_new_tokens > 0) request.generate = generate;
    const requested = await this.service.createTrace(request, WAIT, signal);
    this.store.dispatch({ type: "run", run: { trace: requested } });
    const positions = requested.tokens.length + Math.max(generate.max_new_tokens - 1, 0);
    const empty = requested.status === "done" ? null : this.#showMain(null, positions, signal); // blocks without values, until then
    empty?.catch(() => {}); // errors are thrown by `await` below
    const trace = await this.#waitFor(requested, signal);
    await empty;
    await this.#showMain(trace, positions, signal);
  }

  async #waitFor(requested: Trace, signal: AbortSignal): Promise<Trace> {
    let trace = requested;
    const report = (run: object): void => this.store.dispatch({ type: "run", run });
    while (trace.status === "queued" || trace.status === "running") {
      report({ status: trace.status, progress: trace.progress, position: trace.queue_position });
      await this.service.followTrace(trace.id, (progress) => report({ status: "running", progress }), signal);
      trace = await this.service.trace(trace.id, signal);
    }
    if (trace.status === "done") return trace;
    throw new Error(trace.error?.detail ?? trace.status);
  }

  async #showMain(trace: Trace | null, tokens: number | null, signal: AbortSignal): Promise<void> {
    const { model: ref } = this.store.state.view;
    const layout = await (trace?.layout ? this.#layouts.at(trace.layout, signal) : this.#layouts.of(ref, tokens, signal));
    signal.throwIfAborted();
    const { models, view } = this.store.state;
    this.#show({ main: figure(ref, layout, trace, models) });
    if (trace || !view.traced) this.store.dispatch({ type: "run", run: { status: trace ? "done" : "idle", progress: null } });
  }

  /** Loads the models beside the main one. */
  async #loadOthers(): Promise<void> {
    this.#others.abort();
    this.#others = new AbortController();
    const { signal } = this.#others;
    const { view } = this.store.state;
    const loaded = await Promise.allSettled(
      view.beside.map(async (ref) => figure(ref, await this.#layouts.of(ref, null, signal), null, this.store.state.models)),
    );
    if (signal.aborted) return;
    const others = loaded.flatMap((one): Figure[] => (one.status === "fulfilled" ? [one.value] : []));
    const refused = loaded.find((one) => one.status === "rejected");
    if (refused) this.store.dispatch({ type: "run", run: { message: reason(refused.reason) } });
    this.#show({ others });
  }
}

function mainKey({ model, traced, prompt, generate, tokens }: View): string {
  return JSON.stringify(traced ? [model, prompt, generate] : [model, tokens]);
}
