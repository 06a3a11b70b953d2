import { beforeEach, describe, expect, it, vi } from "vitest";

import { opened } from "../src/opening";
import type { Action } from "../src/state/actions";
import { initial } from "../src/state/state";
import { Store } from "../src/state/store";
import { INITIAL } from "../src/state/view";

const NEVER = new Promise<void>(() => {});

/** After how many milliseconds the page opens, where this happens at once. */
async function opens(picture: Promise<void>, ...actions: Action[]): Promise<number> {
  const store = new Store(initial(INITIAL));
  const began = Date.now();
  const open = opened(picture, store).then(() => Date.now() - began);
  for (const action of actions) store.dispatch(action);
  await vi.advanceTimersByTimeAsync(10_000);
  return open;
}

describe("what is around the picture comes", () => {
  beforeEach(() => void vi.useFakeTimers());

  it("once the picture is there", async () => expect(await opens(Promise.resolve())).toBe(0));
  it.each<Action>([
    { type: "trouble", trouble: { kind: "unreachable", retryIn: 1 } },
    { type: "graphics", graphics: "missing" },
    { type: "run", run: { status: "queued" } },
    { type: "run", run: { status: "failed", message: "no such model" } },
  ])("at once where there is something to say: %j", async (action) => expect(await opens(NEVER, action)).toBe(0));
  it("soon, where nobody answers", async () => expect(await opens(NEVER)).toBe(1000));
  it("even if the picture takes long", async () => {
    const trace = { id: "t" } as never;
    expect(await opens(NEVER, { type: "run", run: { trace } })).toBe(3000);
  });
});
