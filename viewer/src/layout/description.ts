/**
 * What a layout says of its architecture: kinds of blocks, stacks of layers, groups of heads, steps of the computation.
 * The rest of the viewer reads this, and knows no model family by name.
 */

import { present } from "../checked/item";

export const ROLES = ["weight", "activation", "statistic"] as const;
export type Role = (typeof ROLES)[number];

/** What a kind of block is in any transformer, where the viewer has to find it. */
export type Part =
  | "tokens"
  | "embedding" // what the first layer reads
  | "resid" // what a layer leaves to the next
  | "norm"
  | "query"
  | "key"
  | "value"
  | "scores"
  | "pattern"
  | "mixed"
  | "attention_out"
  | "mlp" // the widest activations of a layer's MLP
  | "logits"
  | "probs";

/** A kind of block: what its blocks in all layers and heads have in common. */
export interface Kind {
  id: string; // a pattern, such as blocks.{layer}.attn.heads.{head}.q
  name: string;
  role: Role;
  scope: "model" | "layer" | "head"; // head: a member of the group, whatever that is called
  dims: string[];
  minor: boolean;
  tensor: string | null; // with {layer}
  stack: string | null; // which layers it is in
  group: string | null; // of which group each layer has one for every member
  step: string | null; // of the computation
  part: Part | null;
  parameters: string | null; // of a weight: the part of the parameters that it is counted in
}

/** Layers that are built alike, one after another. */
export interface Stack {
  name: string;
  layers: number;
}

/** Members of a layer that work side by side: heads, heads of keys and values, experts. */
export interface Group {
  name: string; // also of the place in a pattern: {head}
  count: number;
  pattern: string; // heads.{head}
}

/** A step of the computation, as the tour walks through it. */
export interface Step {
  id: string;
  name: string;
  text: string;
  formula: string; // _ puts the next word below the line
  kinds: string[]; // that it computes, the one to look at first; patterns
  from: string[]; // that these are computed from; patterns
}

export interface Architecture {
  kinds: Kind[];
  stacks: Stack[];
  groups: Group[];
  steps: Step[];
  context: number; // the most positions that the model can take
  activation: string | null; // the function in its MLPs
  tied: string[]; // parts of the parameters that are another part's numbers
}

const NUMBERS = /(?<=^|\.)(?:\d+|\{\w+\})(?=\.|$)/g;

/** An id, or the pattern of its kind, without its numbers. */
export function shapeOf(id: string): string {
  return id.replace(NUMBERS, "*");
}

/** The numbers in an id: the layer, then the member of a group. */
export function numbersIn(id: string): number[] {
  return (id.match(NUMBERS) ?? []).map(Number);
}

/** The id that a pattern becomes for a layer and a member of a group. */
export function filled(pattern: string, layer: number, member = 0): string {
  return pattern.replace(/\{(\w+)\}/g, (_, place: string) => String(place === "layer" ? layer : member));
}

/** Whether a dimension of a block counts positions. */
export const isPosition = (dim: string | undefined): boolean => dim === "T";

/** Whether a dimension of a block counts the tokens of the vocabulary. */
export const isVocabulary = (dim: string | undefined): boolean => dim === "V";

/** An architecture, with what the viewer looks up in it. */
export class Description implements Architecture {
  readonly kinds: Kind[];
  readonly stacks: Stack[];
  readonly groups: Group[];
  readonly steps: Step[];
  readonly context: number;
  readonly activation: string | null;
  readonly tied: string[];

  constructor({ kinds, stacks, groups, steps, context, activation, tied }: Architecture) {
    this.kinds = kinds;
    this.stacks = stacks;
    this.groups = groups;
    this.steps = steps;
    this.context = context;
    this.activation = activation;
    this.tied = tied;
  }

  /** The kind that is this part; of several the first. */
  part(part: Part): Kind | null {
    return this.kinds.find((kind) => kind.part === part) ?? null;
  }

  /** The layers of a stack; of the first one, if it is not said which. */
  layers(stack: string | null | undefined = null): number {
    return (this.stacks.find(({ name }) => name === stack) ?? this.stacks[0])?.layers ?? 0;
  }

  /** The members of a group; 1 for a kind of no group. */
  members(group: string | null): number {
    return group === null ? 1 : present(this.groups.find(({ name }) => name === group), `group ${group}`).count;
  }

  /** The heads of the attention whose pattern is read. */
  get heads(): number {
    return this.members(this.part("pattern")?.group ?? null);
  }

  /** How many heads a layout is read of so that two members of each group, or its only one, are among their blocks. */
  get sampledHeads(): number {
    const { heads } = this;
    return Math.max(1, ...this.groups.map(({ count }) => (count > 1 ? Math.floor(heads / count) + 1 : 1)));
  }

  /** A head that goes with a member of a group. */
  headOf(group: string | null, member: number): number {
    return group === null ? 0 : Math.floor((member * this.heads) / this.members(group));
  }

  /** How many layers of all stacks together have blocks of a kind, and how many such blocks there are. */
  countOf({ stack, group }: Pick<Kind, "stack" | "group">): { layers: number; blocks: number } {
    const layers = stack === null ? 1 : this.layers(stack);
    return { layers, blocks: layers * this.members(group) };
  }

  /**
   * The blocks that a step computes, and those it reads. Of a stack, the first layer is shown, and of a group the
   * last member, which is in front. What is computed after the layers reads the last one; what is of no head reads
   * all heads.
   */
  blocksOf({ kinds, from }: Readonly<Record<"kinds" | "from", readonly string[]>>): { computed: string[]; read: string[] } {
    const [main] = kinds;
    const ofLayer = main !== undefined && hasLayer(main);
    const ofMember = main !== undefined && this.#groupOf(main) !== null;
    const computed = kinds.map((pattern) => filled(pattern, 0, this.#last(pattern)));
    const read = from.flatMap((pattern) => {
      const layer = ofLayer ? 0 : this.layers(this.#stackOf(pattern)) - 1;
      const last = this.#last(pattern);
      return Array.from({ length: ofMember ? 1 : last + 1 }, (_, n) => filled(pattern, layer, ofMember ? last : n));
    });
    return { computed, read };
  }

  #last(pattern: string): number {
    return this.members(this.#groupOf(pattern)) - 1;
  }

  #groupOf(pattern: string): string | null {
    return this.groups.find(({ pattern: part }) => pattern.includes(part))?.name ?? null;
  }

  #stackOf(pattern: string): string | null {
    return this.kinds.find(({ id }) => id === pattern)?.stack ?? null;
  }
}

function hasLayer(pattern: string): boolean {
  return pattern.includes("{layer}");
}
