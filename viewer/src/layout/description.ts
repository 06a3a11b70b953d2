/**
 * A layout's architecture: kinds of blocks, stacks of layers, groups of heads, steps of the computation.
 * The viewer relies on this alone and contains no names of model families.
 */

import { present } from "../checked/item";

export const ROLES = ["weight", "activation", "statistic"] as const;
export type Role = (typeof ROLES)[number];

/** The function of a kind of block in any transformer: the viewer looks kinds up by it. */
export type Part =
  | "tokens"
  | "embedding" // the input of the first layer
  | "resid" // the output of a layer
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

/** A kind of block, common to all layers and heads. */
export interface Kind {
  id: string; // a pattern, such as blocks.{layer}.attn.heads.{head}.q
  name: string;
  role: Role;
  scope: "model" | "layer" | "head"; // head: a member of any group
  dims: string[];
  minor: boolean;
  tensor: string | null; // with {layer}
  stack: string | null; // the layers that contain it
  group: string | null; // each layer has one block for every member of this group
  step: string | null; // of the computation
  part: Part | null;
  parameters: string | null; // the part of the model's parameters that a weight is counted in
}

/** A sequence of layers with the same structure. */
export interface Stack {
  name: string;
  layers: number;
}

/** Parallel members of a layer: heads, key/value heads, experts. */
export interface Group {
  name: string; // also of its placeholder in patterns: {head}
  count: number;
  pattern: string; // heads.{head}
}

/** A step of the computation, shown by the tour. */
export interface Step {
  id: string;
  name: string;
  text: string;
  formula: string; // _ makes the next word a subscript
  kinds: string[]; // that it computes, the main one first; patterns
  from: string[]; // that these are computed from; patterns
}

export interface Architecture {
  kinds: Kind[];
  stacks: Stack[];
  groups: Group[];
  steps: Step[];
  context: number; // the maximum number of positions
  activation: string | null; // the function in its MLPs
  tied: string[]; // parts of the parameters that are shared with another part
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

/** The id for a layer and a member of a group. */
export function filled(pattern: string, layer: number, member = 0): string {
  return pattern.replace(/\{(\w+)\}/g, (_, place: string) => String(place === "layer" ? layer : member));
}

/** Whether a dimension of a block counts positions. */
export const isPosition = (dim: string | undefined): boolean => dim === "T";

/** Whether a dimension of a block counts the tokens of the vocabulary. */
export const isVocabulary = (dim: string | undefined): boolean => dim === "V";

/** An architecture, with lookups. */
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

  /** The first kind with this part. */
  part(part: Part): Kind | null {
    return this.kinds.find((kind) => kind.part === part) ?? null;
  }

  /** The number of layers of a stack, by default the first. */
  layers(stack: string | null | undefined = null): number {
    return (this.stacks.find(({ name }) => name === stack) ?? this.stacks[0])?.layers ?? 0;
  }

  /** The number of members of a group; 1 for null. */
  members(group: string | null): number {
    return group === null ? 1 : present(this.groups.find(({ name }) => name === group), `group ${group}`).count;
  }

  /** The number of attention heads. */
  get heads(): number {
    return this.members(this.part("pattern")?.group ?? null);
  }

  /** The number of heads to request so that the response contains two members of each group, or its only one. */
  get sampledHeads(): number {
    const { heads } = this;
    return Math.max(1, ...this.groups.map(({ count }) => (count > 1 ? Math.floor(heads / count) + 1 : 1)));
  }

  /** The first head that uses a member of a group. */
  headOf(group: string | null, member: number): number {
    return group === null ? 0 : Math.floor((member * this.heads) / this.members(group));
  }

  /** The number of layers that have blocks of a kind, and of such blocks. */
  countOf({ stack, group }: Pick<Kind, "stack" | "group">): { layers: number; blocks: number } {
    const layers = stack === null ? 1 : this.layers(stack);
    return { layers, blocks: layers * this.members(group) };
  }

  /**
   * The blocks that a step computes and reads: in the first layer of a stack, and of the last member of a group, which
   * is in front. Blocks after the layers read the last layer; blocks outside a group read all members.
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
