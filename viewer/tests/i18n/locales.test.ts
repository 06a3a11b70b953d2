import { expect, test } from "vitest";

import en from "../../locales/en.json";
import zhHant from "../../locales/zh-Hant.json";

const places = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

test("every language has the same keys", () => expect(Object.keys(zhHant).sort()).toEqual(Object.keys(en).sort()));

test("every language has the same placeholders", () => {
  for (const [key, text] of Object.entries(en)) expect(places(zhHant[key as keyof typeof en]), key).toEqual(places(text));
});
