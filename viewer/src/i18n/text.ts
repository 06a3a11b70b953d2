/** Translated texts, as in `t("run")` and `t("head.n", { n: 11 })`. */

import en from "../../locales/en.json";
import zhHant from "../../locales/zh-Hant.json";

export type Key = keyof typeof en;

export const LANGUAGES = { en: "English", "zh-Hant": "繁體中文" } as const;
export type Language = keyof typeof LANGUAGES;

const TEXTS: Record<Language, Partial<Record<Key, string>>> = { en, "zh-Hant": zhHant };
let language: Language = "en";

export function setLanguage(chosen: Language): void {
  language = chosen;
  document.documentElement.lang = chosen;
}

export function currentLanguage(): Language {
  return language;
}

/** The chosen language, or the browser's preference among those available. */
export function preferred(chosen: string | null, browser: readonly string[] = navigator.languages): Language {
  if (chosen && chosen in LANGUAGES) return chosen as Language;
  for (const tag of browser) {
    if (/^zh\b/i.test(tag)) return "zh-Hant";
    if (/^en\b/i.test(tag)) return "en";
  }
  return "en";
}

export function t(key: Key, values: Record<string, string | number> = {}): string {
  const text = TEXTS[language][key] ?? en[key];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? String(values[name]) : whole));
}

/** The text of a computed key, such as `unit.layers`, or `fallback` if there is no such key. */
export function textOr(key: string, fallback: string, values: Record<string, string | number> = {}): string {
  return key in en ? t(key as Key, values) : fallback;
}

/** Progress as text: "2 of 12 layers". */
export function progressText({ done, total, unit }: { done: number; total: number; unit: string }): string {
  return t("done.of", { done: number(done), total: number(total), unit: textOr(`unit.${unit}`, unit) });
}

export function number(value: number, digits = 0): string {
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

/** A large number in a few characters: 175B, 1746億. */
export function compact(value: number): string {
  return value.toLocaleString(language, { notation: "compact", maximumSignificantDigits: 3 });
}

/** A share of 1 in percent; a share too small for `digits` gets two significant digits. */
export function percent(share: number, digits = 1): string {
  const small = share > 0 && share < 10 ** -(digits + 1);
  if (small && share < 1e-7) return `< ${percent(1e-7)}`;
  return share.toLocaleString(language, { style: "percent", ...(small ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: digits }) });
}

export function bytes(value: number): string {
  const power = value < 1 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), 5);
  return `${(value / 1000 ** power).toLocaleString(language, { maximumSignificantDigits: 3 })} ${["B", "kB", "MB", "GB", "TB", "PB"][power]}`;
}

/** A cell's value with up to six digits and a typographic minus; null is −∞. */
export function cellValue(value: number | null): string {
  if (value === null) return "−∞";
  const text = Math.abs(value) >= 1e-4 || value === 0 ? String(Number(value.toPrecision(6))) : value.toExponential(4);
  return text.replace(/-/g, "−");
}
