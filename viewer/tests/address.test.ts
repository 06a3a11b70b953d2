import { describe, expect, it } from "vitest";

import { fromHash, toHash } from "../src/state/address";
import { INITIAL, type View } from "../src/state/view";

const VIEWS: Record<string, Partial<View>> = {
  "the first": {},
  "another text": { prompt: { text: "A & B = C? #1 + 你好" }, generate: { ...INITIAL.generate, max_new_tokens: 0, temperature: 0.7, top_k: 5, top_p: 0.9, seed: 3 } },
  "token ids": { model: "gpt2", prompt: { tokens: [15496, 995] } },
  "an empty text": { prompt: { text: "" } },
  "sizes of one's own": { model: { n_layer: 128, n_embd: 57344, n_head: 448 }, traced: false, tokens: 4096 },
  "models side by side": { beside: ["gpt2", { n_layer: 2, n_embd: 64, n_head: 2 }, "gpt3-175b"], flow: "down" },
  "a camera": { camera: { target: [1.5, -20, 1e6], distance: 12.25, azimuth: -0.22, elevation: 0.24 } },
  "cells that were followed": {
    pinned: [
      { figure: 0, block: "blocks.0.attn.heads.1.q", cell: [4, 2, 0] },
      { figure: 1, block: "tokens", cell: [0, 0, 0] },
    ],
  },
  "a step, one of the tour, colours, a language": { step: 3, tour: "scores", colour: { scale: "log", palette: "safe", gain: 2.5, range: 12.5 }, language: "zh-Hant" },
  "a reading aid and a head": { aid: "lens", head: [2, 11] },
  "the attention of all layers, and no aid": { aid: "", head: [-1, 0] },
};

describe("the address", () => {
  it.each(Object.entries(VIEWS))("brings back %s", (_, change) => {
    const view = { ...INITIAL, ...change };
    expect(fromHash(`#${toHash(view)}`)).toEqual(view);
  });

  it("is empty for the initial view", () => expect(toHash(INITIAL)).toBe(""));

  it.each(["camera=1,2,3", "camera=1,2,3,-4,0,0", "cell=0,tokens,x,1,0", "step=half", "flow=up", "palette=pink", "range=-1", "head=1", "head=1,-1", "%%%", "model=", "beside=;;"])(
    "makes the usual of nonsense: %s",
    (nonsense) => expect(fromHash(nonsense)).toEqual(INITIAL),
  );
});
