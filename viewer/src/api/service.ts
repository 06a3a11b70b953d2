/** The service's API, one method per request. */

import type { RequestOptions, Client, Schemas } from "./client";
import { follow, type Progress } from "./events";
import { decode } from "./numbers";
import { parse, type File } from "./safetensors";

export type Config = Record<string, unknown>;
export type Family = Schemas["Family"];
export type Model = Schemas["Model"];
export type Trace = Schemas["Trace"];
export type LayoutFacts = Schemas["Layout"];
export type Explanation = Schemas["Explanation"];
export type Formula = Schemas["Formula"];
export type Lens = Schemas["Lens"];
export type ModelRef = string | Record<string, unknown>;

/** Values in C order; in a reduced tensor, one for `factors` cells along each of the last axes. */
export interface Values {
  values: Float32Array<ArrayBuffer>;
  shape: number[];
  factors: number[];
}

export interface TraceRequest {
  model: ModelRef;
  text?: string;
  tokens?: number[];
  generate?: { max_new_tokens: number; temperature?: number; top_k?: number | null; top_p?: number | null; seed?: number };
}

export class Service {
  constructor(readonly client: Client) {}

  models(signal?: AbortSignal): Promise<Schemas["Models"]> {
    return this.client.json("/v1/models", { signal });
  }

  families(signal?: AbortSignal): Promise<Schemas["Families"]> {
    return this.client.json("/v1/families", { signal });
  }

  /** Creates a trace; the response is complete if the job finishes within `wait` seconds. */
  createTrace(request: TraceRequest, wait: number, signal?: AbortSignal): Promise<Trace> {
    return this.client.json("/v1/traces", { method: "POST", json: request, wait, signal });
  }

  trace(id: string, signal?: AbortSignal): Promise<Trace> {
    return this.client.json(`/v1/traces/${id}`, { signal });
  }

  followTrace(id: string, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<string> {
    return follow(`/v1/traces/${id}/events`, onProgress, signal);
  }

  async cancelTrace(id: string): Promise<void> {
    await this.client.send(`/v1/traces/${id}`, { method: "DELETE" });
  }

  createLayout(model: ModelRef, tokens: number | null, signal?: AbortSignal): Promise<LayoutFacts> {
    const json = tokens === null ? { model } : { model, tokens };
    return this.client.json("/v1/layouts", { method: "POST", json, wait: 30, signal });
  }

  /** A layout's file. The browser may have cached one from an earlier version of the service: it is then reloaded. */
  async layoutColumns(link: string, signal?: AbortSignal): Promise<File> {
    const options = { accept: "application/x-safetensors", wait: 30, signal };
    const file = parse(await this.#buffer(link, options));
    if (file.metadata["architecture"] !== undefined) return file;
    return parse(await this.#buffer(link, { ...options, cache: "reload" }));
  }

  /** Which slice of which tensor fills each block of a layer and some of its heads. */
  layoutTensors(link: string, layer: number, heads: number, signal?: AbortSignal): Promise<LayoutFacts> {
    const query = `layers=${layer}:${layer + 1}&heads=0:${heads}&fields=id,tensor`;
    return this.client.json(`${link}?${query}`, { wait: 30, signal });
  }

  /** The formulas of a layer's blocks, for one head and for blocks outside heads. */
  layoutFormulas(link: string, layer: number, head: number, signal?: AbortSignal): Promise<LayoutFacts> {
    const query = `layers=${layer}:${layer + 1}&heads=${head}:${head + 1}&fields=id,formula`;
    return this.client.json(`${link}?${query}`, { wait: 30, signal });
  }

  /** A layout as GLB. */
  layoutShape(link: string): Promise<ArrayBuffer> {
    return this.#buffer(link, { accept: "model/gltf-binary", wait: 30 });
  }

  /** All tensors of a trace or a model, in one file. */
  async file(of: string, signal?: AbortSignal): Promise<File> {
    return parse(await this.#buffer(`${of}/safetensors`, { accept: "application/x-safetensors", signal }));
  }

  /** A tensor or a slice of it, as bytes; `of` is the path of a trace or a model. */
  async values(of: string, name: string, query: Record<string, string>, signal?: AbortSignal): Promise<Values> {
    const path = `${of}/tensors/${encodeURIComponent(name)}?${new URLSearchParams(query)}`;
    const response = await this.client.send(path, { accept: "application/octet-stream", signal });
    const numbers = (header: string) => (response.headers.get(header) ?? "").split(",").filter(Boolean).map(Number);
    const values = decode(await this.client.bytes(response), response.headers.get("Tensor-Dtype") ?? "");
    return { values, shape: numbers("Tensor-Shape"), factors: numbers("Tensor-Factors") };
  }

  /** One value of a tensor, in full precision. */
  async value(of: string, name: string, slice: string, signal?: AbortSignal): Promise<number | null> {
    const query = new URLSearchParams({ slice });
    const path = `${of}/tensors/${encodeURIComponent(name)}?${query}`;
    const { data } = await this.client.json<{ data: number | null }>(path, { signal });
    return data;
  }

  explain(trace: string, block: string, cell: readonly number[], limit: number, signal?: AbortSignal): Promise<Explanation> {
    const query = new URLSearchParams({ block, cell: cell.join(), limit: String(limit) });
    return this.client.json(`/v1/traces/${trace}/explain?${query}`, { signal });
  }

  /** What each layer would predict; without results if the job takes longer than `wait` seconds. */
  lens(trace: string, query: Record<string, string>, wait: number, signal?: AbortSignal): Promise<Lens> {
    return this.client.json(`/v1/traces/${trace}/lens?${new URLSearchParams(query)}`, { wait, signal });
  }

  async #buffer(path: string, options: RequestOptions): Promise<ArrayBuffer> {
    return this.client.bytes(await this.client.send(path, options));
  }
}
