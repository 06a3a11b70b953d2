import { expect, test } from "vitest";

import type { Client, RequestOptions } from "../../src/api/client";
import { Service } from "../../src/api/service";

/** A safetensors file without tensors. */
function file(metadata: Record<string, string>): ArrayBuffer {
  const header = new TextEncoder().encode(JSON.stringify({ __metadata__: metadata }));
  const bytes = new Uint8Array(8 + header.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  return bytes.buffer;
}

function serviceOf(answers: Record<string, ArrayBuffer>): { service: Service; asked: string[] } {
  const asked: string[] = [];
  const client = {
    send: (_: string, { cache = "default" }: RequestOptions = {}) => {
      asked.push(cache);
      return Promise.resolve(cache);
    },
    bytes: (cache: string) => Promise.resolve(answers[cache]),
  } as unknown as Client;
  return { service: new Service(client), asked };
}

test("an outdated layout in the browser's cache is reloaded", async () => {
  const { service, asked } = serviceOf({ default: file({ kinds: "[]" }), reload: file({ architecture: "{}" }) });
  expect((await service.layoutColumns("/v1/layouts/1")).metadata["architecture"]).toBe("{}");
  expect(asked).toEqual(["default", "reload"]);
});

test("a layout with its architecture is requested once", async () => {
  const { service, asked } = serviceOf({ default: file({ architecture: "{}" }) });
  await service.layoutColumns("/v1/layouts/1");
  expect(asked).toEqual(["default"]);
});
