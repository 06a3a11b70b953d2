import { item } from "../../src/checked/item";
import { describe, expect, it } from "vitest";

import { RequestCache } from "../../src/session/cache";

const patient = new AbortController().signal;

/** Responses that the test resolves, and a count of requests. */
function service() {
  const asked: { key: string; signal: AbortSignal; answer: (text: string) => void; fail: (error: Error) => void }[] = [];
  const load = (key: string) => (signal: AbortSignal): Promise<string> =>
    new Promise((answer, fail) => asked.push({ key, signal, answer, fail }));
  return { asked, load };
}

describe("cached requests", () => {
  it("are sent once for all waiters, before and after the response", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(4);
    const both = [cache.get("a", load("a"), patient), cache.get("a", load("a"), patient)];
    item(asked, 0).answer("one");
    expect(await Promise.all(both)).toEqual(["one", "one"]);
    expect(await cache.get("a", load("a"), patient)).toBe("one");
    expect(asked).toHaveLength(1);
  });

  it("are aborted when the last waiter aborts, and sent again afterwards", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(4);
    const [first, second] = [new AbortController(), new AbortController()];
    const waits = [first, second].map(({ signal }) => cache.get("a", load("a"), signal));
    first.abort();
    await expect(waits[0]).rejects.toThrow();
    expect(item(asked, 0).signal.aborted).toBe(false);
    second.abort();
    await expect(waits[1]).rejects.toThrow();
    expect(item(asked, 0).signal.aborted).toBe(true);
    void cache.get("a", load("a"), patient);
    expect(asked).toHaveLength(2);
  });

  it("reject for signals that are already aborted", async () => {
    const { asked, load } = service();
    await expect(new RequestCache<string>(4).get("a", load("a"), AbortSignal.abort())).rejects.toThrow();
    expect(item(asked, 0).signal.aborted).toBe(true);
  });

  it("are sent again after a failure", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(4);
    const refused = cache.get("a", load("a"), patient);
    item(asked, 0).fail(new Error("no"));
    await expect(refused).rejects.toThrow("no");
    const again = cache.get("a", load("a"), patient);
    item(asked, 1).answer("yes");
    expect(await again).toBe("yes");
  });

  it("are evicted in the order of last use", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(2);
    const get = async (key: string): Promise<string> => {
      const answer = cache.get(key, load(key), patient);
      asked.at(-1)!.answer(key);
      return answer;
    };
    for (const key of ["a", "b", "a", "c", "a", "b"]) expect(await get(key)).toBe(key);
    expect(asked.map(({ key }) => key)).toEqual(["a", "b", "c", "b"]);
  });
});
