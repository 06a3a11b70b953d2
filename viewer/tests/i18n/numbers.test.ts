import { expect, test } from "vitest";

import { bytes, compact, percent } from "../../src/i18n/text";

test.each([
  [1, "100%"],
  [0.12345, "12.35%"],
  [0.0003, "0.03%"],
  [0.000054321, "0.0054%"],
  [1e-9, "< 0.00001%"],
  [0, "0%"],
])("a share of %d is %s", (share, text) => expect(percent(share, 2)).toBe(text));

test.each([
  [85_728, "85.7K"],
  [174_604_259_328, "175B"],
])("%d are %s", (count, text) => expect(compact(count)).toBe(text));

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1_000, "1 kB"],
  [698_417_037_312, "698 GB"],
])("%d bytes are %s", (count, text) => expect(bytes(count)).toBe(text));
