import { beforeEach, describe, expect, it, vi } from "vitest";

import { whenReady } from "../src/opening";
import type { Action } from "../src/state/actions";
import { initial } from "../src/state/state";
import { Store } from "../src/state/store";
import { INITIAL } from "../src/state/view";

const NEVER = new Promise<void>(() => {});

/** The number of milliseconds after which the panels are mounted, with these actions dispatched at the start. */
async function opens(picture: Promise<void>, ...actions: Action[]): Promise<number> {
  const store = new Store(initial(INITIAL));
  const began = Date.now();
  const open = whenReady(picture, store).then(() => Date.now() - began);
  for (const action of actions) store.dispatch(action);
  await vi.advanceTimersByTimeAsync(10_000);
  return open;
}

describe("the panels are mounted", () => {
  beforeEach(() => void vi.useFakeTimers());

  it("with the first picture", async () => expect(await opens(Promise.resolve())).toBe(0));
  it.each<Action>([
    { type: "trouble", trouble: { kind: "unreachable", retryIn: 1 } },
    { type: "graphics", graphics: "missing" },
    { type: "run", run: { status: "queued" } },
    { type: "run", run: { status: "failed", message: "no such model" } },
  ])("immediately if there is a message to show: %j", async (action) => expect(await opens(NEVER, action)).toBe(0));
  it("after a timeout if the server does not respond", async () => expect(await opens(NEVER)).toBe(1000));
  it("after a timeout if the picture takes long", async () => {
    const trace = { id: "t" } as never;
    expect(await opens(NEVER, { type: "run", run: { trace } })).toBe(3000);
  });
});
