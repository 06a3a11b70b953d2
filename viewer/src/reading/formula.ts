/** How cells of a block are computed, in words: for those that were not, so that there are no numbers to put in. */

import type { Formula } from "../api/service";
import { number, t, type Key } from "../i18n/text";

/** One sentence; `nameOf` says what a block is called. */
export function inWords({ op, over, inputs, scale, function: activation }: Formula, nameOf: (block: string) => string): string {
  const [x, y, z, weight, bias] = inputs.map(({ block }) => t("quoted", { text: nameOf(block) }));
  const each = number(over ?? 1);
  switch (op) {
    case "dot": {
      const terms = number((over ?? 1) * Math.floor(inputs.length / 2));
      const left = inputs.length % 2 ? t("quoted", { text: nameOf(inputs.at(-1)!.block) }) : "";
      if (scale !== undefined) return t("how.scores", { n: terms, x, y, root: number(scale ** -2) });
      return t(left ? "how.dot.plus" : "how.dot", { n: terms, x, y, bias: left });
    }
    case "activation":
      return t("how.activation", { x, name: (activation ?? "").startsWith("gelu") ? "GELU" : (activation ?? "") });
    default:
      return KNOWN.has(op) ? t(`how.${op}` as Key, { n: each, x, y, z, weight, bias }) : "";
  }
}

/** What the server says of a cell, whose words are English, with a sentence in the reader's language for them. */
export function translated(text: string, sentence: string): string {
  return t("how.all", { sentence, equation: text.slice(text.lastIndexOf(": ") + 2) });
}

const KNOWN = new Set(["input", "embed", "mean", "norm_scale", "layer_norm", "max", "sum_exp", "softmax", "add"]);
