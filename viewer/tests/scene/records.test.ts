import { describe, expect, it } from "vitest";

import { AT, Records } from "../../src/scene/records";

describe("what is told of each block", () => {
  it("is sent whole at first, even if some of it changed before, and then by what changed", () => {
    const records = new Records(1000);
    records.put(7, AT.scale, [2]);
    expect(records.texture.updateRanges).toEqual([]);
    records.texture.onUpdate!(records.texture); // it was sent
    records.put(8, AT.scale, [3]);
    expect(records.texture.updateRanges).toHaveLength(1);
    expect([records.get(7, AT.scale), records.get(8, AT.scale)]).toEqual([2, 3]);
  });
});
