import { describe, expect, it, test } from "vitest";

import type { Family } from "../../src/api/service";
import { derive, fieldsOf } from "../../src/reading/sizes";

const FAMILIES = [
  { model_type: "a", config: { type: "object", properties: { layers: { type: "integer", title: "Layers" }, epsilon: { type: "number", title: "Epsilon" } } } },
  {
    model_type: "b",
    config: {
      type: "object",
      properties: { width: { type: "integer", title: "Width" }, head: { type: ["integer", "null"], title: "Head width", "x-derived": "width / 4" } },
      required: ["model_type"],
    },
  },
] as unknown as Family[];

describe("the size fields of a configuration", () => {
  it("are the integers of its family's schema", () => {
    expect(fieldsOf({ model_type: "b", width: 8, head: 2 }, FAMILIES)).toEqual([
      { name: "width", title: "Width", formula: null },
      { name: "head", title: "Head width", formula: "width / 4" },
    ]);
  });

  it("are those of the default family without a model_type", () => {
    expect(fieldsOf({ layers: 3, epsilon: 1 }, FAMILIES)).toEqual([{ name: "layers", title: "Layers", formula: null }]);
  });

  it("have their names as titles if the family is unknown", () => {
    expect(fieldsOf({ model_type: "c", layers: 3, epsilon: 0.1 }, FAMILIES)).toEqual([{ name: "layers", title: "layers", formula: null }]);
  });
});

test.each([
  ["n_embd / n_head", 16],
  ["4 * n_embd", 192],
  ["n_head", 3],
  ["n_embd / 5", null],
  ["n_embd / missing", null],
])("%s is %s", (formula, value) => expect(derive(formula, { n_embd: 48, n_head: "3" })).toBe(value));
