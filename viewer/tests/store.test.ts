import { describe, expect, it, vi } from "vitest";

import { Client, Refused, pauseAfter } from "../src/api/client";
import { Queue, type Job } from "../src/api/queue";
import { current, initial } from "../src/state/state";
import { Store } from "../src/state/store";
import { INITIAL, type CellAt } from "../src/state/view";
import en from "../locales/en.json";
import zhHant from "../locales/zh-Hant.json";

const A: CellAt = { figure: 0, block: "logits", cell: [1, 2, 0] };
const B: CellAt = { figure: 0, block: "lm_head", cell: [3, 2, 0] };

describe("the store", () => {
  it("notifies a listener on subscribing, then only of changes of its selection", () => {
    const store = new Store(initial(INITIAL));
    const listener = vi.fn();
    store.subscribe(({ view }) => view.step, listener);
    store.dispatch({ type: "hover", at: A });
    store.dispatch({ type: "view", change: { step: 2 } });
    expect(listener.mock.calls.map(([step]) => step)).toEqual([null, 2]);
  });

  it("unsubscribes the listeners of an ended scope", () => {
    const store = new Store(initial(INITIAL));
    const scope = store.scope();
    const listener = vi.fn();
    scope.subscribe(({ view }) => view.step, listener);
    scope.end();
    store.dispatch({ type: "view", change: { step: 2 } });
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it("follows operands and goes back; pinned cells take precedence over hovered ones", () => {
    const store = new Store(initial(INITIAL));
    store.dispatch({ type: "pin", at: A });
    store.dispatch({ type: "follow", at: B });
    store.dispatch({ type: "hover", at: A });
    expect(current(store.state)).toEqual(B);
    store.dispatch({ type: "back" });
    expect(current(store.state)).toEqual(A);
    store.dispatch({ type: "clear" });
    expect(store.state.view.pinned).toEqual([]);
  });

  it("resets camera, cells and step for another model, but keeps the camera for another prompt", () => {
    const store = new Store(initial({ ...INITIAL, step: 2, pinned: [A], camera: { target: [0, 0, 0], distance: 1, azimuth: 0, elevation: 0 } }));
    store.dispatch({ type: "show", change: { prompt: { text: "AAA" } } });
    expect(store.state.view).toMatchObject({ step: null, pinned: [], camera: { distance: 1 } });
    store.dispatch({ type: "show", change: { model: "gpt2" } });
    expect(store.state.view.camera).toBeNull();
  });
});

describe("the queue of reads", () => {
  const job = (key: string, log: string[]): Job => ({
    key,
    run: (signal) =>
      new Promise((resolve) => {
        log.push(`+${key}`);
        signal.addEventListener("abort", () => (log.push(`-${key}`), resolve()));
      }),
  });

  it("runs a few jobs in parallel, and cancels those no longer wanted", async () => {
    const log: string[] = [];
    const queue = new Queue(2);
    queue.want([job("a", log), job("b", log), job("c", log)]);
    queue.want([job("b", log), job("d", log)]);
    await vi.waitFor(() => expect(log).toEqual(["+a", "+b", "-a", "+d"]));
  });
});

describe("the client", () => {
  const answers = (...list: (Response | Error)[]) =>
    vi.spyOn(globalThis, "fetch").mockImplementation(() => {
      const next = list.shift()!;
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(next);
    });

  it("retries while the server is unreachable or busy, and reports the trouble", async () => {
    const busy = new Response("", { status: 503, headers: { "Retry-After": "0" } });
    answers(new TypeError("away"), busy, new Response('{"n": 1}'));
    const told: (string | undefined)[] = [];
    const client = new Client("", (trouble) => told.push(trouble?.kind));
    vi.useFakeTimers();
    const answer = client.json("/v1/models");
    await vi.runAllTimersAsync();
    vi.useRealTimers();
    expect(await answer).toEqual({ n: 1 });
    expect(told).toContain("unreachable");
    expect(told).toContain("busy");
    expect(told.at(-1)).toBeUndefined();
  });

  it("throws a refused request's message without a retry", async () => {
    answers(new Response('{"detail": "no letter of this model"}', { status: 422 }));
    await expect(new Client("").json("/v1/traces")).rejects.toThrow(Refused);
  });

  it("doubles the pause between attempts, unless the server sends Retry-After", () => {
    expect([0, 1, 2, 9].map((attempt) => pauseAfter(attempt, null))).toEqual([0.5, 1, 2, 10]);
    expect(pauseAfter(5, "3")).toBe(3);
  });
});

it("every language has the same texts and placeholders", () => {
  const places = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();
  expect(Object.keys(zhHant).sort()).toEqual(Object.keys(en).sort());
  for (const [key, text] of Object.entries(en)) expect([key, places(zhHant[key as keyof typeof en])]).toEqual([key, places(text)]);
});
