// The attention of one head, typed: cutaway.d.ts is made from the service's own description by
//   npx openapi-typescript http://localhost:8000/openapi.yaml --default-non-nullable=false -o examples/cutaway.d.ts
import type { components } from "./cutaway";

type Schemas = components["schemas"];

async function ask<Answer>(path: string, body?: object): Promise<Answer> {
  const headers = { "Content-Type": "application/json", Prefer: "wait=10" };
  const answer = await fetch("http://localhost:8000" + path, body && { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.ok) return answer.json();
  const problem: Schemas["Problem"] = await answer.json();
  throw new Error(problem.detail);
}

const wanted: Schemas["TraceRequest"] = { model: "nano-gpt", text: "CBABBC", generate: { max_new_tokens: 6 } };
const trace = await ask<Schemas["Trace"]>("/v1/traces", wanted);
for (const { text, probability } of trace.generated ?? []) console.log(text, probability);

const pattern = await ask<Schemas["TensorValues"]>(`/v1/traces/${trace.id}/tensors/blocks.0.attn.pattern?slice=0,0`);
console.table(pattern.data);

const layout = await ask<Schemas["Layout"]>("/v1/layouts", { model: wanted.model, tokens: 11 } satisfies Schemas["LayoutRequest"]);
const heads: Schemas["Block"][] = (layout.blocks ?? []).filter((block) => block.head === 0);
console.log(heads.map(({ id, position }) => `${id} at ${position}`).join("\n"));

export {};
