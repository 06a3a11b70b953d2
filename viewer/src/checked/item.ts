/** Checked access to values that must exist. */

/** The n-th element. Throws RangeError if it does not exist. */
export function item<T>(list: ArrayLike<T>, n: number): T {
  const found = list[n];
  if (found === undefined) throw new RangeError(`no element ${n} in a list of ${list.length}`);
  return found;
}

/** The value itself. Throws ReferenceError with `name` if it is null or undefined. */
export function present<T>(value: T | null | undefined, name: string): T {
  if (value === null || value === undefined) throw new ReferenceError(`${name} is missing`);
  return value;
}
