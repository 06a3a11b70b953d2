import { item } from "../../src/checked/item";
import { describe, expect, it } from "vitest";

import { RequestCache } from "../../src/session/cache";

const patient = new AbortController().signal;

/** Answers that come when they are told to, and how often they were asked for. */
function service() {
  const asked: { key: string; signal: AbortSignal; answer: (text: string) => void; fail: (error: Error) => void }[] = [];
  const load = (key: string) => (signal: AbortSignal): Promise<string> =>
    new Promise((answer, fail) => asked.push({ key, signal, answer, fail }));
  return { asked, load };
}

describe("answers that are kept", () => {
  it("are asked for once, however many want them, before and after they came", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(4);
    const both = [cache.get("a", load("a"), patient), cache.get("a", load("a"), patient)];
    item(asked, 0).answer("one");
    expect(await Promise.all(both)).toEqual(["one", "one"]);
    expect(await cache.get("a", load("a"), patient)).toBe("one");
    expect(asked).toHaveLength(1);
  });

  it("are given up when the last who waits goes away, and asked for anew", async () => {
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

  it("are not waited for by those who are gone already", async () => {
    const { asked, load } = service();
    await expect(new RequestCache<string>(4).get("a", load("a"), AbortSignal.abort())).rejects.toThrow();
    expect(item(asked, 0).signal.aborted).toBe(true);
  });

  it("are asked for again after they failed", async () => {
    const { asked, load } = service();
    const cache = new RequestCache<string>(4);
    const refused = cache.get("a", load("a"), patient);
    item(asked, 0).fail(new Error("no"));
    await expect(refused).rejects.toThrow("no");
    const again = cache.get("a", load("a"), patient);
    item(asked, 1).answer("yes");
    expect(await again).toBe("yes");
  });

  it("make room for others: what was not wanted for longest goes first", async () => {
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
