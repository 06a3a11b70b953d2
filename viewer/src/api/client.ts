/** HTTP client: typed errors, retries while the server is unreachable or busy, abortable requests. */

import { present } from "../checked/item";
import type { components } from "./schema";

export type Schemas = components["schemas"];
export type Problem = Schemas["Problem"];

/** The error of a 4xx response. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Partial<Problem>,
  ) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
  }
}

/** Why a response is late: the server is unreachable, busy or slow. */
export interface Trouble {
  kind: "unreachable" | "busy" | "slow";
  retryIn: number; // seconds until the next attempt; 0 while waiting for this one
}

export interface RequestOptions {
  method?: "GET" | "POST" | "DELETE";
  accept?: string;
  cache?: RequestCache; // "reload": not from the browser's cache
  json?: unknown;
  wait?: number; // seconds that the server may hold the request (Prefer: wait)
  signal?: AbortSignal | undefined;
  slowAfter?: number; // seconds
}

const BUSY = new Set([429, 502, 503, 504]);
const LONGEST_PAUSE = 10;

export class Client {
  received: (bytes: number) => void = () => {}; // called for each chunk of a response
  #troubles = new Map<object, Trouble>();

  /** Calls `report` with the oldest trouble, or null, whenever that may have changed. */
  constructor(
    private readonly base: string,
    private readonly report: (trouble: Trouble | null) => void = () => {},
  ) {}

  async json<T>(path: string, options: RequestOptions = {}): Promise<T> {
    const bytes = await this.bytes(await this.send(path, { ...options, accept: "application/json" }));
    return JSON.parse(new TextDecoder().decode(bytes)) as T;
  }

  async bytes(response: Response): Promise<ArrayBuffer> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (const reader = present(response.body, "the body of a response").getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return joined(parts, length).buffer;
      parts.push(value);
      length += value.byteLength;
      this.received(value.byteLength);
    }
  }

  /** Sends a request, with retries, until it succeeds. Throws Refused, or AbortError. */
  async send(path: string, options: RequestOptions = {}): Promise<Response> {
    const token = {};
    try {
      for (let attempt = 0; ; attempt++) {
        const response = await this.#once(path, options, token);
        if (response?.ok) return response;
        if (response && !BUSY.has(response.status)) throw new Refused(response.status, await problemOf(response));
        const pause = pauseAfter(attempt, response?.headers.get("Retry-After"));
        this.#track(token, { kind: response ? "busy" : "unreachable", retryIn: pause });
        await sleep(pause * 1000, options.signal);
      }
    } finally {
      this.#track(token, null);
    }
  }

  /** Makes one attempt; null if there was no response. */
  async #once(path: string, options: RequestOptions, token: object): Promise<Response | null> {
    const headers: Record<string, string> = { Accept: options.accept ?? "*/*" };
    if (options.json !== undefined) headers["Content-Type"] = "application/json";
    if (options.wait) headers["Prefer"] = `wait=${options.wait}`;
    const slowAfter = 1000 * ((options.slowAfter ?? 5) + (options.wait ?? 0));
    const slow = setTimeout(() => this.#track(token, { kind: "slow", retryIn: 0 }), slowAfter);
    const body = options.json === undefined ? null : JSON.stringify(options.json);
    try {
      const response = await fetch(this.base + path, {
        method: options.method ?? "GET",
        headers,
        body,
        cache: options.cache ?? "default",
        signal: options.signal ?? null,
      });
      this.#track(token, null);
      return response;
    } catch (error) {
      if (options.signal?.aborted) throw error;
      return null;
    } finally {
      clearTimeout(slow);
    }
  }

  #track(token: object, trouble: Trouble | null): void {
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

/** Seconds before the next attempt: Retry-After, or twice as long each time. */
export function pauseAfter(attempt: number, retryAfter: string | null | undefined): number {
  const wanted = Number(retryAfter);
  return retryAfter && Number.isFinite(wanted) ? Math.min(wanted, 60) : Math.min(0.5 * 2 ** attempt, LONGEST_PAUSE);
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

async function problemOf(response: Response): Promise<Partial<Problem>> {
  return (await response.json().catch(() => ({ title: response.statusText }))) as Partial<Problem>;
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
