/** The sizes of a configuration, as fields of a form. */

import type { Config, Family } from "../api/service";

/** A size; a derived one is computed from others unless it is set. */
export interface SizeField {
  name: string; // in the configuration
  title: string; // in English
  formula: string | null; // of a derived size, such as "n_embd / n_head"
}

/** The integer fields of a configuration, described by the JSON Schema of its family; by their names alone if that is unknown. */
export function fieldsOf(config: Config, families: readonly Family[]): SizeField[] {
  const properties = propertiesFor(config, families);
  const names = Object.keys(config).filter((name) => (properties ? isInteger(properties[name]) : Number.isInteger(config[name])));
  return names.map((name) => {
    const { title = name, "x-derived": formula = null } = properties?.[name] ?? {};
    return { name, title, formula };
  });
}

/** The value of a formula of products and quotients; null if it is not a positive integer. */
export function derive(formula: string, values: Readonly<Record<string, unknown>>): number | null {
  const [first = "", ...rest] = formula.split(/\s*([*/])\s*/);
  const valueOf = (term = ""): number => (/^\d+$/.test(term) ? Number(term) : Number(values[term] ?? NaN));
  let result = valueOf(first);
  for (let n = 0; n < rest.length; n += 2) result = rest[n] === "*" ? result * valueOf(rest[n + 1]) : result / valueOf(rest[n + 1]);
  return Number.isInteger(result) && result > 0 ? result : null;
}

interface Property {
  type?: string | string[];
  title?: string;
  "x-derived"?: string;
}

/** The schema of the configuration's family; without a model_type, of the family that does not require one. */
function propertiesFor({ model_type: type }: Config, families: readonly Family[]): Record<string, Property> | null {
  const isDefault = ({ config }: Family): boolean => !(config as Schema).required?.includes("model_type");
  const found = families.find((family) => (type === undefined ? isDefault(family) : family.model_type === type));
  return (found?.config as Schema | undefined)?.properties ?? null;
}

interface Schema {
  properties?: Record<string, Property>;
  required?: string[];
}

function isInteger(property: Property | undefined): boolean {
  return [property?.type ?? []].flat().includes("integer");
}
