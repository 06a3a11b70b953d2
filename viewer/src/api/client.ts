/** Asks the service: typed errors, patience with a server that is away or slow, and nothing that cannot be aborted. */

import { present } from "../checked/item";
import type { components } from "./schema";

export type Schemas = components["schemas"];
export type Problem = Schemas["Problem"];

/** What the server refused (4xx), with its own words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Partial<Problem>,
  ) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
  }
}

/** Why an answer is late: the server cannot be reached, has no room, or has not answered yet. */
export interface Trouble {
  kind: "away" | "busy" | "slow";
  retryIn: number; // seconds until it is asked again; 0: it is being waited for
}

export interface Ask {
  method?: "GET" | "POST" | "DELETE";
  accept?: string;
  json?: unknown;
  wait?: number; // seconds that the server may hold the request (Prefer: wait)
  signal?: AbortSignal | undefined;
  patience?: number; // seconds after which it counts as slow
}

const BUSY = new Set([429, 502, 503, 504]);
const LONGEST_PAUSE = 10;

export class Client {
  received: (bytes: number) => void = () => {}; // is told of each part of an answer, as it comes
  #troubles = new Map<object, Trouble>();

  /** `report` is told of the first trouble whenever troubles come or go; null: all is well. */
  constructor(
    private readonly base: string,
    private readonly report: (trouble: Trouble | null) => void = () => {},
  ) {}

  async json<T>(path: string, ask: Ask = {}): Promise<T> {
    const bytes = await this.bytes(await this.send(path, { ...ask, accept: "application/json" }));
    return JSON.parse(new TextDecoder().decode(bytes)) as T;
  }

  async bytes(answer: Response): Promise<ArrayBuffer> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (const reader = present(answer.body, "the body of an answer").getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return joined(parts, length).buffer;
      parts.push(value);
      length += value.byteLength;
      this.received(value.byteLength);
    }
  }

  /** The answer to a request that succeeded, asked again until there is one. Throws Refused, or AbortError. */
  async send(path: string, ask: Ask = {}): Promise<Response> {
    const token = {};
    try {
      for (let attempt = 0; ; attempt++) {
        const answer = await this.#once(path, ask, token);
        if (answer?.ok) return answer;
        if (answer && !BUSY.has(answer.status)) throw new Refused(answer.status, await problemOf(answer));
        const pause = pauseAfter(attempt, answer?.headers.get("Retry-After"));
        this.#tell(token, { kind: answer ? "busy" : "away", retryIn: pause });
        await sleep(pause * 1000, ask.signal);
      }
    } finally {
      this.#tell(token, null);
    }
  }

  /** One attempt; null where nobody answered. */
  async #once(path: string, ask: Ask, token: object): Promise<Response | null> {
    const headers: Record<string, string> = { Accept: ask.accept ?? "*/*" };
    if (ask.json !== undefined) headers["Content-Type"] = "application/json";
    if (ask.wait) headers["Prefer"] = `wait=${ask.wait}`;
    const patience = 1000 * ((ask.patience ?? 5) + (ask.wait ?? 0));
    const slow = setTimeout(() => this.#tell(token, { kind: "slow", retryIn: 0 }), patience);
    const body = ask.json === undefined ? null : JSON.stringify(ask.json);
    try {
      const answer = await fetch(this.base + path, { method: ask.method ?? "GET", headers, body, signal: ask.signal ?? null });
      this.#tell(token, null);
      return answer;
    } catch (error) {
      if (ask.signal?.aborted) throw error;
      return null;
    } finally {
      clearTimeout(slow);
    }
  }

  #tell(token: object, trouble: Trouble | null): void {
    const known = this.#troubles.has(token);
    if (trouble) this.#troubles.set(token, trouble);
    else this.#troubles.delete(token);
    if (trouble || known) this.report(this.#troubles.values().next().value ?? null);
  }
}

function joined(parts: Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.byteLength;
  }
  return all;
}

/** Seconds before the next attempt: what the server asks for, or twice as long each time. */
export function pauseAfter(attempt: number, retryAfter: string | null | undefined): number {
  const asked = Number(retryAfter);
  return retryAfter && Number.isFinite(asked) ? Math.min(asked, 60) : Math.min(0.5 * 2 ** attempt, LONGEST_PAUSE);
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

async function problemOf(answer: Response): Promise<Partial<Problem>> {
  return (await answer.json().catch(() => ({ title: answer.statusText }))) as Partial<Problem>;
}

function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason ?? new DOMException("aborted", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
