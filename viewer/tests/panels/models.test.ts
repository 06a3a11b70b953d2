import { describe, expect, it } from "vitest";

import type { Model } from "../../src/api/service";
import { opening } from "../../src/panels/models";

/** A model with a vocabulary of this kind. */
const model = (kind: Model["vocabulary"]["kind"]): Model =>
  ({ id: "some", vocabulary: { kind, size: 9 }, parameters: { total: 1000 } }) as never;

describe("the first prompt of a model", () => {
  it.each<Model["vocabulary"]["kind"]>(["gpt2", "tokenizer.json"])("is a text for the vocabulary %s", (kind) =>
    expect(opening(model(kind)).prompt).toHaveProperty("text"),
  );
  it("is a letter for letters", () => expect(opening(model("letters")).prompt).toEqual({ text: "A" }));
  it("is ids for a vocabulary without text", () => expect(opening(model("ids")).prompt).toHaveProperty("tokens"));
});
