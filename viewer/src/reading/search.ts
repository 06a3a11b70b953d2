/** Finds blocks by what people type: words of ids and names, "layer 3", "h1", an id or a part of one. */

import type { Kind, Layout } from "../layout/layout";

export interface Query {
  words: string[];
  layer: number | null;
  head: number | null;
}

/** Rows of a layout, the best first, and how many there are of them. */
export interface Found {
  rows: number[];
  total: number;
}

const NUMBER = /^(?:(?:layer|l|第)?(\d+)層?|(?:head|h|頭)(\d+))$/;
const LABEL = /^(?:(layer|l|層)|(head|h|頭))$/;

/** What is asked for: "q layer 3 head 1", "3 1 q", "l3 h1 q" and "blocks.3.attn.heads.1.q" mean the same. */
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

/** A part of an id as it is in a kind's id; its numbers go to the query. */
function idWord(word: string, query: Query): string {
  return word
    .replace(/(blocks\.|^)(\d+)(?=\.|$)/, (_, before: string, layer: string) => ((query.layer = Number(layer)), `${before}{layer}`))
    .replace(/heads\.(\d+)/, (_, head: string) => ((query.head = Number(head)), "heads.{head}"));
}

/** Blocks that match every word and number; at most `most` rows, those of the kinds that fit best first. */
export function find(layout: Layout, text: string, nameOf: (kind: Kind) => string, most = 60): Found {
  const query = parse(text);
  if (!text.trim()) return { rows: [], total: 0 };
  const ranks = layout.kinds.map((kind) => rank(kind, nameOf(kind), query));
  const byRank = new Map<number, number[]>();
  let total = 0;
  for (let row = 0; row < layout.count; row++) {
    const of = ranks[layout.kind[row]];
    if (of === null || (query.layer !== null && layout.layer[row] !== query.layer) || (query.head !== null && layout.head[row] !== query.head)) continue;
    total++;
    const rows = byRank.get(of);
    if (!rows) byRank.set(of, [row]);
    else if (rows.length < most) rows.push(row);
  }
  const best = [...byRank].sort(([a], [b]) => a - b).flatMap(([, rows]) => rows);
  return { rows: best.slice(0, most), total };
}

/** 0 for what is meant, more for what only contains the words; null where one of them is not in it. */
function rank(kind: Kind, name: string, { words, layer, head }: Query): number | null {
  if ((layer !== null && kind.scope === "model") || (head !== null && kind.scope !== "head")) return null;
  const id = kind.id.toLowerCase();
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
