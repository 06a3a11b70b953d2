/** Probabilities of the next token, from logits and a temperature. */

import { item } from "../checked/item";

export interface Likely {
  token: number;
  probability: number;
}

/** softmax(logits / temperature), in float64; at temperature 0 the first largest logit has probability 1. */
export function softmax(logits: ArrayLike<number>, temperature: number): Float64Array {
  const largest = largestOf(logits);
  if (temperature <= 0) {
    const first = Array.prototype.indexOf.call(logits, largest);
    return Float64Array.from(logits, (_, n) => (n === first ? 1 : 0));
  }
  const all = Float64Array.from(logits, (logit) => Math.exp((logit - largest) / temperature));
  const sum = all.reduce((total, weight) => total + weight, 0);
  return all.map((weight) => weight / sum);
}

/** The `most` most probable tokens, in descending order; of equal ones the first. */
export function top(probabilities: ArrayLike<number>, most: number): Likely[] {
  const best: Likely[] = [];
  for (let token = 0; token < probabilities.length; token++) {
    const probability = item(probabilities, token);
    const last = best.at(-1);
    if (last && best.length === most && probability <= last.probability) continue;
    const place = best.findIndex((other) => other.probability < probability);
    best.splice(place < 0 ? best.length : place, 0, { token, probability });
    best.length = Math.min(best.length, most);
  }
  return best;
}

/** The entropy in bits. */
export function entropy(probabilities: Float64Array): number {
  return probabilities.reduce((bits, share) => (share > 0 ? bits - share * Math.log2(share) : bits), 0);
}

function largestOf(logits: ArrayLike<number>): number {
  let largest = -Infinity;
  for (let n = 0; n < logits.length; n++) largest = Math.max(largest, item(logits, n));
  return largest;
}
