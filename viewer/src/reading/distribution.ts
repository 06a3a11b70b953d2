/** From logits to the probabilities of the next token, at any temperature. */

export interface Likely {
  token: number;
  probability: number;
}

/** softmax(logits / temperature), in float64; at 0 all of it is the largest one's, the first where several are. */
export function softmax(logits: ArrayLike<number>, temperature: number): Float64Array {
  const all = new Float64Array(logits.length);
  const first = largest(logits);
  if (temperature <= 0) {
    if (first >= 0) all[first] = 1;
    return all;
  }
  let sum = 0;
  for (let n = 0; n < all.length; n++) sum += all[n] = Math.exp((logits[n] - logits[first]) / temperature);
  for (let n = 0; n < all.length; n++) all[n] /= sum;
  return all;
}

/** The `most` largest, the largest first; of equal ones the first. */
export function top(probabilities: ArrayLike<number>, most: number): Likely[] {
  const best: Likely[] = [];
  for (let token = 0; token < probabilities.length; token++) {
    const probability = probabilities[token];
    if (best.length === most && probability <= best[most - 1].probability) continue;
    const at = best.findIndex((other) => other.probability < probability);
    best.splice(at < 0 ? best.length : at, 0, { token, probability });
    best.length = Math.min(best.length, most);
  }
  return best;
}

/** In bits: 0 where one token is certain. */
export function entropy(probabilities: ArrayLike<number>): number {
  let bits = 0;
  for (let n = 0; n < probabilities.length; n++) if (probabilities[n] > 0) bits -= probabilities[n] * Math.log2(probabilities[n]);
  return bits;
}

function largest(logits: ArrayLike<number>): number {
  let at = logits.length ? 0 : -1;
  for (let n = 1; n < logits.length; n++) if (logits[n] > logits[at]) at = n;
  return at;
}
