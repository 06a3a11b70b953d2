/** Search for blocks by words of ids and names, layer and head. */

import { shapeOf, type Kind } from "../layout/description";
import type { Layout } from "../layout/layout";

export interface Query {
  words: string[];
  layer: number | null;
  head: number | null;
}

/** A model that is searched; its name distinguishes its blocks from those of others. */
export interface Searched {
  layout: Layout;
  name: string;
}

export interface Hit {
  figure: number;
  row: number;
}

/** The best matches, and the number of all matches. */
export interface Found {
  hits: Hit[];
  total: number;
}

const NUMBER = /^(?:(?:layer|l|第)?(\d+)層?|(?:head|h|頭)(\d+))$/;
const MEMBERS = /(?:heads|experts)$/; // the parts of an id before the number of a member of a group
const LABEL = /^(?:(layer|l|層)|(head|h|頭))$/;

/** Parses a query: "q layer 3 head 1", "3 1 q", "l3 h1 q" and "blocks.3.attn.heads.1.q" are equivalent. */
export function parse(text: string): Query {
  const query: Query = { words: [], layer: null, head: null };
  let next: "layer" | "head" | null = null;
  for (const word of text.toLowerCase().split(/\s+/).filter(Boolean)) {
    const [, layer, head] = NUMBER.exec(word) ?? [];
    const label = LABEL.exec(word);
    if (label) next = label[1] ? "layer" : "head";
    else if (head !== undefined) query.head = Number(head);
    else if (layer !== undefined) {
      query[next ?? (query.layer === null ? "layer" : "head")] = Number(layer);
      next = null;
    } else query.words.push(idWord(word, query));
  }
  return query;
}

/** An id, or part of one, without its numbers, which become the query's layer and head. */
function idWord(word: string, query: Query): string {
  for (const [, before = "", digits] of word.matchAll(/(?:(\w+)\.|^)(\d+)(?=\.|$)/g)) query[MEMBERS.test(before) ? "head" : "layer"] = Number(digits);
  return shapeOf(word);
}

/** At most `most` blocks of all models that match every word and number, the best-matching kinds first. With several
 * models, words of a model's name select it. */
export function find(models: readonly Searched[], text: string, nameOf: (kind: Kind) => string, most = 60): Found {
  if (!text.trim()) return { hits: [], total: 0 };
  const each = Math.ceil(most / Math.max(models.length, 1)); // no model takes all places
  const byRank = new Map<number, Hit[]>();
  let total = 0;
  models.forEach(({ layout, name }, figure) => {
    const query = parse(models.length > 1 ? withoutName(text, name) : text);
    for (const [fit, { rows, count }] of ranked(layout, query, nameOf, each)) {
      total += count;
      byRank.set(fit, [...(byRank.get(fit) ?? []), ...rows.map((row) => ({ figure, row }))]);
    }
  });
  const best = [...byRank].sort(([a], [b]) => a - b).flatMap(([, hits]) => hits);
  return { hits: best.slice(0, most), total };
}

/** A text without the words of a model's name. */
function withoutName(text: string, name: string): string {
  const own = name.toLowerCase().split(/\s+/);
  return text.split(/\s+/).filter((word) => !own.includes(word.toLowerCase())).join(" ");
}

/** Blocks of one model by the rank of their kind: the first `most` of each rank, and the number of all. */
function ranked(layout: Layout, query: Query, nameOf: (kind: Kind) => string, most: number): Map<number, { rows: number[]; count: number }> {
  const ranks = new Map(layout.description.kinds.map((kind) => [kind, rank(kind, nameOf(kind), query)]));
  const byRank = new Map<number, { rows: number[]; count: number }>();
  for (let row = 0; row < layout.count; row++) {
    const of = ranks.get(layout.kindAt(row)) ?? null;
    if (of === null || (query.layer !== null && layout.layer[row] !== query.layer) || (query.head !== null && layout.head[row] !== query.head)) continue;
    const known = byRank.get(of) ?? { rows: [], count: 0 };
    byRank.set(of, known);
    known.count++;
    if (known.rows.length < most) known.rows.push(row);
  }
  return byRank;
}

/** 0 for an exact match, more for partial ones; null if a word does not match. */
function rank(kind: Kind, name: string, { words, layer, head }: Query): number | null {
  if ((layer !== null && kind.stack === null) || (head !== null && kind.group === null)) return null;
  const id = shapeOf(kind.id.toLowerCase());
  const last = id.slice(id.lastIndexOf(".") + 1);
  const names = `${name} ${kind.name}`.toLowerCase();
  let sum = kind.minor ? 1 : 0;
  for (const word of words) {
    if (last === word || id === word) continue;
    if (last.startsWith(word) || names.startsWith(word)) sum += 2;
    else if (names.includes(word)) sum += 4;
    else if (id.includes(word)) sum += 6;
    else return null;
  }
  return sum;
}
