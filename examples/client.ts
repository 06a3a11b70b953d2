// Read the attention of one head, with types. This generates cutaway.d.ts from the service's OpenAPI document:
//   npx openapi-typescript http://localhost:8000/openapi.yaml --default-non-nullable=false -o examples/cutaway.d.ts
import type { components } from "./cutaway";

type Schemas = components["schemas"];

async function send<Result>(path: string, body?: object): Promise<Result> {
  const headers = { "Content-Type": "application/json", Prefer: "wait=10" };
  const response = await fetch("http://localhost:8000" + path, body && { method: "POST", headers, body: JSON.stringify(body) });
  if (response.ok) return response.json();
  const problem: Schemas["Problem"] = await response.json();
  throw new Error(problem.detail);
}

const request: Schemas["TraceRequest"] = { model: "nano-gpt", text: "CBABBC", generate: { max_new_tokens: 6 } };
const trace = await send<Schemas["Trace"]>("/v1/traces", request);
for (const { text, probability } of trace.generated ?? []) console.log(text, probability);

const pattern = await send<Schemas["TensorValues"]>(`/v1/traces/${trace.id}/tensors/blocks.0.attn.pattern?slice=0,0`);
console.table(pattern.data);

const layout = await send<Schemas["Layout"]>("/v1/layouts", { model: request.model, tokens: 11 } satisfies Schemas["LayoutRequest"]);
const heads: Schemas["Block"][] = (layout.blocks ?? []).filter((block) => block.head === 0);
console.log(heads.map(({ id, position }) => `${id} at ${position}`).join("\n"));

export {};
