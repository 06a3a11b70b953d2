/** Formulas as translated sentences. */

import type { Formula } from "../api/service";
import { number, t, textOr } from "../i18n/text";

/** Whether a cell is masked: its key, at i, comes after its query, at j, or before the query's window. */
export function masks({ mask, window }: Formula, [i, j]: readonly number[]): boolean {
  const [key, query] = [i ?? 0, j ?? 0];
  return mask !== undefined && (key > query || (window !== undefined && key <= query - window));
}

/** How the cells of a block are computed, in one sentence; "" for an unknown operation. `nameOf`: names of blocks. */
export function inWords({ op, over, inputs, scale, mask, window, cap, function: activation }: Formula, nameOf: (block: string) => string): string {
  const [x = "", y = "", z = "", weight = "", bias = ""] = inputs.map(({ block }) => t("quoted", { text: nameOf(block) }));
  const each = number(over ?? 1);
  switch (op) {
    case "dot": {
      const terms = number((over ?? 1) * Math.floor(inputs.length / 2));
      const last = inputs.at(-1);
      const left = last && inputs.length % 2 ? t("quoted", { text: nameOf(last.block) }) : "";
      if (scale !== undefined) return t(mask === "window" ? "how.scores.window" : mask === "causal" ? "how.scores.causal" : "how.scores", { n: terms, x, y, root: number(scale ** -2), window: number(window ?? 0) });
      return t(left ? "how.dot.plus" : "how.dot", { n: terms, x, y, bias: left });
    }
    case "embed":
      return t(z ? "how.embed" : "how.embed.token", { y, z });
    case "activation":
    case "gated":
      return t(`how.${op}`, { x, y, name: (activation ?? "").startsWith("gelu") ? "GELU" : (activation ?? "") });
    case "softcap":
      return t("how.softcap", { x, cap: number(cap ?? 0) });
    default:
      return textOr(`how.${op}`, "", { n: each, x, y, z, weight, bias });
  }
}

/** Splits the API's explanation of a cell into an English sentence and the sides of an equation. */
export function partsOf(text: string): { sentence: string; sides: string[] } {
  const at = text.lastIndexOf(": ");
  return { sentence: text.slice(0, at + 1), sides: sidesOf(text.slice(at + 2)) };
}

/** "a = b(s = 0…3) = c" as "a", "= b(s = 0…3)", "= c". */
function sidesOf(equation: string): string[] {
  const sides = [""];
  let depth = 0;
  for (const sign of equation) {
    depth += sign === "(" || sign === "[" ? 1 : sign === ")" || sign === "]" ? -1 : 0;
    if (sign === "=" && depth === 0) sides.push("");
    sides[sides.length - 1] += sign;
  }
  return sides.map((side) => side.trim());
}

