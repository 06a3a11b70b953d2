import { item } from "../src/checked/item";
import { describe, expect, it } from "vitest";

import names from "../locales/en.json";
import { fromHash, toHash } from "../src/state/address";
import { initial, type Figure } from "../src/state/state";
import { Store } from "../src/state/store";
import { INITIAL } from "../src/state/view";
import { nth, operands } from "../src/tour/fill";
import { STOPPED, computed, play, type Command, type Place } from "../src/state/player";
import { common } from "../src/tour/sight";
import { tourOf } from "../src/state/steps";
import { descriptionOf, layoutFrom } from "./layouts";
import gemma2 from "./architectures/gemma2.json";
import gemma3 from "./architectures/gemma3.json";
import gpt2 from "./architectures/gpt2.json";
import llama from "./architectures/llama.json";
import { blockName } from "../src/i18n/names";
import { Description, type Architecture, type Kind } from "../src/layout/description";
import { WORDS, fill } from "../src/tour/words";

const FACTS = ["model", "parameters", "layers", "heads", "width", "head_width", "inner", "vocab", "tokens", "activation"];
const OF_A_TRACE = ["prompt", "pieces", "output", "next", "probability", "top"];
const DESCRIPTION = descriptionOf(5, 3);
const STEPS = tourOf(DESCRIPTION);
const places = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name).sort();

const architectures = [gpt2, llama, gemma2, gemma3].map((one) => new Description(one as unknown as Architecture));

describe("the texts of the tour", () => {
  const { en, ...others } = WORDS;

  it("cover every step of GPT-2 in English, and no others", () => {
    for (const { id } of STEPS) for (const part of ["title", "text"]) expect(en).toHaveProperty([`${id}.${part}`]);
    const parts = ["own", "empty", "title", "text", "values", "synthetic"];
    for (const key of Object.keys(en)) expect(STEPS.some(({ id }) => parts.some((part) => key === `${id}.${part}`)), key).toBe(true);
  });

  it.each(Object.entries(others))("have the same keys and placeholders in %s as in English", (_, words) => {
    for (const [key, text] of Object.entries(en)) expect(places(words[key] ?? ""), key).toEqual(places(text));
  });

  it.each(Object.entries(others))("cover in %s every step of every family, and no others", (_, words) => {
    const steps = architectures.flatMap((description) => tourOf(description).map(({ id }) => id));
    for (const id of steps) for (const part of ["title", "text"]) expect(words).toHaveProperty([`${id}.${part}`]);
    for (const key of Object.keys(words)) expect(steps).toContain(key.split(".")[0]);
    for (const text of Object.values(words)) for (const place of places(text)) expect([...FACTS, ...OF_A_TRACE]).toContain(place);
  });

  it("use facts of a trace only in .values", () => {
    for (const [key, text] of Object.entries(en))
      for (const place of places(text)) expect(key.endsWith(".values") ? [...FACTS, ...OF_A_TRACE] : FACTS).toContain(place);
    for (const { formula } of STEPS) for (const place of places(formula)) expect(FACTS).toContain(place);
  });

  it("have at most 120 words", () => {
    for (const [key, text] of Object.entries(en)) expect(text.split(/\s+/).length, key).toBeLessThanOrEqual(120);
  });

  it("are omitted if a placeholder's value is unknown", () => {
    expect(fill("{a} of {b}", { a: "1", b: "2" })).toBe("1 of 2");
    expect(fill("{a} of {b}", { a: "1" })).toBeNull();
  });
});

describe("the steps of the tour", () => {
  it.each(architectures)("name kinds of the architecture", (description) => {
    const ids = description.kinds.map(({ id }) => id);
    for (const { kinds, from } of tourOf(description)) for (const id of [...kinds, ...from]) expect(ids).toContain(id);
  });

  it.each(architectures)("have the API's texts where the locales have none", (description) => {
    for (const step of tourOf(description))
      for (const part of ["title", "text"]) expect(WORDS.en[`${step.id}.${part}`] ?? (part === "title" ? step.name : step.text)).not.toBe("");
  });

  it.each([gpt2, llama, gemma2, gemma3])("name blocks with names in the locales", (architecture) => {
    for (const kind of architecture.kinds) expect(Object.values(names)).toContain(blockName(kind as unknown as Kind));
  });

  it("show the head in front, and all heads as inputs of blocks outside heads", () => {
    const [q, z] = ["q", "z"].map((name) => `blocks.{layer}.attn.heads.{head}.${name}`) as [string, string];
    expect(descriptionOf(4, 12).blocksOf({ kinds: [q], from: [z] })).toEqual({ computed: ["blocks.0.attn.heads.11.q"], read: ["blocks.0.attn.heads.11.z"] });
    const { read } = descriptionOf(4, 2).blocksOf({ kinds: ["blocks.{layer}.attn_out"], from: [z] });
    expect(read).toEqual(["blocks.0.attn.heads.0.z", "blocks.0.attn.heads.1.z"]);
  });

  it("read the last layer if they come after all layers", () => {
    expect(descriptionOf(4, 2).blocksOf({ kinds: ["logits"], from: ["blocks.{layer}.resid_post"] }).read).toEqual(["blocks.3.resid_post"]);
  });

  it("are in the order of the computation, between general ones", () => {
    const ids = STEPS.map(({ id }) => id);
    expect(ids.slice(0, 4)).toEqual(["start", "tokens", "embedding", "norm"]);
    expect(ids.slice(-7)).toEqual(["back", "layers", "last", "logits", "probs", "choose", "again"]);
  });

  it("are in links by their ids; unknown ids are ignored", () => {
    expect(toHash({ ...INITIAL, tour: "scores" })).toBe("tour=scores");
    expect(fromHash("tour=scores").tour).toBe("scores");
    expect(fromHash("tour=no where").tour).toBeNull();
    const store = new Store(initial(fromHash("tour=nowhere")));
    const figures = [{ layout: layoutFrom(DESCRIPTION) }] as Figure[];
    store.dispatch({ type: "figures", figures });
    expect(store.state.view.tour).toBeNull();
    store.dispatch({ type: "view", change: { tour: "nowhere" } });
    expect(store.state.view.tour).toBeNull();
    store.dispatch({ type: "view", change: { tour: "scores" } });
    expect(store.state.view.tour).toBe("scores");
  });
});

describe("the player", () => {
  const steps = [{ id: "a", seconds: 10 }, { id: "b", seconds: 5 }, { id: "c", seconds: 4 }];
  const after = (place: Place, ...commands: Command[]): Place => commands.reduce((now, command) => play(now, command, steps), place);
  const NONE: Place = { step: null, player: STOPPED };
  const started = after(NONE, { do: "start" });

  it("advances with time, and stops at the end of the last step", () => {
    const seen: (string | null)[] = [];
    let place = started;
    for (let n = 0; n < 40; n++) {
      seen.push(place.step);
      place = after(place, { do: "tick", seconds: 0.5 });
    }
    expect(["a", "b", "c"].map((id) => seen.filter((step) => step === id).length)).toEqual([20, 10, 10]);
    expect(place).toEqual({ step: "c", player: { share: 1, playing: false, speed: 1 } });
  });

  it.each([0.01, 0.3, 7, 100])("advances %f seconds equally in one tick and in many", (seconds) => {
    const many = after(started, ...Array.from({ length: 10 }, (): Command => ({ do: "tick", seconds: seconds / 10 })));
    const one = after(started, { do: "tick", seconds });
    expect(one.step).toBe(many.step);
    expect(one.player.share).toBeCloseTo(many.player.share);
  });

  it("advances faster at a higher speed", () => {
    const { player } = after(started, { do: "speed", speed: 4 }, { do: "tick", seconds: 1 });
    expect(player.share).toBeCloseTo(0.4);
  });

  it("does not advance while paused", () => {
    const paused = after(started, { do: "tick", seconds: 2 }, { do: "toggle" });
    expect(after(paused, { do: "tick", seconds: 60 })).toEqual(paused);
    expect(after(paused, { do: "toggle" }).player).toEqual({ share: 0.2, playing: true, speed: 1 });
  });

  it("shows a complete step while paused, and plays it from its start", () => {
    expect(after(started, { do: "next" })).toEqual({ step: "b", player: { share: 0, playing: true, speed: 1 } });
    expect(after(started, { do: "toggle" }, { do: "next" })).toEqual({ step: "b", player: { share: 1, playing: false, speed: 1 } });
  });

  it("goes back to the start of a playing step, then to the previous one, but not before the first", () => {
    const second = after(started, { do: "tick", seconds: 13 });
    expect(after(second, { do: "previous" })).toMatchObject({ step: "b", player: { share: 0 } });
    expect(after(second, { do: "previous" }, { do: "previous" }, { do: "previous" })).toMatchObject({ step: "a", player: { share: 0 } });
  });

  it("restarts after the end", () => {
    const over = after(started, { do: "tick", seconds: 1000 });
    expect(after(over, { do: "next" })).toEqual(over);
    expect(after(over, { do: "toggle" })).toEqual(started);
  });

  it("goes to a time within a step", () => {
    expect(after(started, { do: "go", step: "c", share: 0.25 })).toMatchObject({ step: "c", player: { share: 0.25 } });
    expect(after(started, { do: "go", step: "nowhere" })).toEqual(started);
  });

  it.each<Command>([{ do: "toggle" }, { do: "next" }, { do: "previous" }, { do: "tick", seconds: 1 }])("does nothing before the tour is started: %o", (command) =>
    expect(after(NONE, command)).toEqual(NONE),
  );

  it("keeps its step in the view, which ticks do not change", () => {
    const store = new Store(initial(INITIAL));
    store.dispatch({ type: "tour", command: { do: "start" } });
    expect(store.state.view.tour).toBe("start");
    const { view } = store.state;
    store.dispatch({ type: "tour", command: { do: "tick", seconds: 0.1 } });
    expect(store.state.view).toBe(view);
    store.dispatch({ type: "tour", command: { do: "end" } });
    expect(store.state.view.tour).toBeNull();
  });
});

describe("the animation", () => {
  it.each([[["T", "C", "B"]], [["T", "T", "B"]], [["F", "T", "B"]]])("fills every cell of a block of %o once", (dims) => {
    const cells = Array.from({ length: 15 }, (_, n) => nth(n, [3, 5, 1], dims).join());
    expect(new Set(cells).size).toBe(15);
  });

  it("completes a position before the next", () => {
    expect([0, 1, 5].map((n) => nth(n, [3, 5, 1], ["T", "C", "B"]))).toEqual([[0, 0, 0], [0, 1, 0], [1, 0, 0]]);
    expect([0, 1, 5].map((n) => nth(n, [5, 3, 1], ["F", "T", "B"]))).toEqual([[0, 0, 0], [1, 0, 0], [0, 1, 0]]);
  });

  it("starts and ends within a step, and never goes back", () => {
    const shares = Array.from({ length: 101 }, (_, n) => computed(n / 100));
    expect(shares.slice(1).every((share, n) => share >= item(shares, n))).toBe(true);
    expect([shares[0], shares[100]]).toEqual([0, 1]);
  });

  it("shows a line of each factor of a dot product", () => {
    const inputs = [
      { block: "W", index: [[0, 0, 0, 1, 16], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]] },
      { block: "x", index: [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]] },
    ];
    expect(operands({ op: "dot", over: 48, inputs }, [4, 7, 0], null)).toEqual([
      { figure: 0, block: "W", cell: [16, 7, 0], to: [63, 7, 0] },
      { figure: 0, block: "x", cell: [4, 0, 0], to: [4, 47, 0] },
    ]);
  });

  it("shows the token's row of an embedding table, if the token is known", () => {
    const inputs = [
      { block: "wte", index: [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]] },
      { block: "wpe", index: [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]] },
    ];
    const cells = operands({ op: "embed", over: null, inputs }, [4, 7, 0], 2).map(({ cell }) => cell);
    expect(cells).toEqual([[2, 7, 0], [4, 7, 0]]);
    expect(operands({ op: "embed", over: null, inputs }, [4, 7, 0], null).map(({ block }) => block)).toEqual(["wpe"]);
  });
});

describe("the intersection of boxes", () => {
  it("is a box or null", () => {
    expect(common({ min: [0, 0, 0], max: [4, 9, 2] }, { min: [2, -5, 1], max: [8, 3, 7] })).toEqual({ min: [2, 0, 1], max: [4, 3, 2] });
    expect(common({ min: [0, 0, 0], max: [4, 9, 2] }, { min: [4, 0, 0], max: [8, 9, 2] })).toBeNull();
  });
});
