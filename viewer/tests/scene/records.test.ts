import { describe, expect, it } from "vitest";

import { AT, Records } from "../../src/scene/records";

describe("the records of blocks", () => {
  it("are uploaded whole at first, then by changed ranges", () => {
    const records = new Records(1000);
    records.put(7, AT.scale, [2]);
    expect(records.texture.updateRanges).toEqual([]);
    records.texture.onUpdate!(records.texture); // as three.js does after uploading
    records.put(8, AT.scale, [3]);
    expect(records.texture.updateRanges).toHaveLength(1);
    expect([records.get(7, AT.scale), records.get(8, AT.scale)]).toEqual([2, 3]);
  });
});
