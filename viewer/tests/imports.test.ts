/** The imports between the viewer's modules have no cycles. */

import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { preProcessFile } from "typescript";
import { describe, expect, it } from "vitest";

const SOURCE = resolve(import.meta.dirname, "../src");

type Graph = Map<string, Set<string>>;

/** The imports of each module of a folder, as paths within it, without generated declarations. */
function importsOf(root: string): Graph {
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"));
  const graph: Graph = new Map(files.map((file) => [file, new Set()]));
  for (const file of files)
    for (const { fileName } of preProcessFile(readFileSync(join(root, file), "utf8"), true, true).importedFiles) {
      const imported = `${relative(root, resolve(root, dirname(file), fileName))}.ts`;
      if (fileName.startsWith(".") && graph.has(imported)) graph.get(file)?.add(imported);
    }
  return graph;
}

/** The imports between folders. */
function foldersOf(graph: Graph): Graph {
  const folders: Graph = new Map();
  for (const [file, imported] of graph) {
    const from = dirname(file);
    const others = [...imported].map(dirname).filter((to) => to !== from);
    folders.set(from, new Set([...(folders.get(from) ?? []), ...others]));
  }
  return folders;
}

/** A cycle in a graph, its first node repeated at the end; null if there is none. */
function cycleOf(graph: Graph): string[] | null {
  const done = new Set<string>();
  const search = (node: string, path: string[]): string[] | null => {
    if (path.includes(node)) return [...path.slice(path.indexOf(node)), node];
    if (done.has(node)) return null;
    for (const next of graph.get(node) ?? []) {
      const cycle = search(next, [...path, node]);
      if (cycle) return cycle;
    }
    done.add(node);
    return null;
  };
  for (const node of graph.keys()) {
    const cycle = search(node, []);
    if (cycle) return cycle;
  }
  return null;
}

describe("imports", () => {
  const graph = importsOf(SOURCE);

  it("are read from every module", () => {
    expect(graph.size).toBeGreaterThan(80);
    expect(graph.get("main.ts")).toContain("app.ts"); // by import()
    expect(graph.get("state/store.ts")).toContain("state/state.ts"); // of types
  });

  it("have no cycles of files", () => expect(cycleOf(graph)).toBeNull());
  it("have no cycles of folders", () => expect(cycleOf(foldersOf(graph))).toBeNull());

  it("with cycles are detected", () => {
    const round: Graph = new Map([["a/x", new Set(["b/y"])], ["b/y", new Set(["b/z"])], ["b/z", new Set(["a/w"])], ["a/w", new Set()]]);
    expect(cycleOf(round)).toBeNull();
    expect(cycleOf(foldersOf(round))).toEqual(["a", "b", "a"]);
    expect(cycleOf(round.set("a/w", new Set(["b/y"])))).toEqual(["b/y", "b/z", "a/w", "b/y"]);
  });
});
