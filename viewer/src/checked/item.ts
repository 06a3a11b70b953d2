/** Access to elements that must be there: where one is missing, an error says which. */

/** The n-th element. Throws RangeError where there is none. */
export function item<T>(list: ArrayLike<T>, n: number): T {
  const found = list[n];
  if (found === undefined) throw new RangeError(`no element ${n} in a list of ${list.length}`);
  return found;
}

/** A value that is known to exist. Throws, naming it, where it does not. */
export function present<T>(value: T | null | undefined, name: string): T {
  if (value === null || value === undefined) throw new ReferenceError(`${name} is missing`);
  return value;
}
