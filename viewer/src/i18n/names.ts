/** Names of blocks: translated where the locales have one, otherwise the service's. */

import type { Kind } from "../layout/description";
import { maybe } from "./text";

export function blockName({ id, name, part }: Pick<Kind, "id" | "name" | "part">): string {
  const own = id.slice(id.lastIndexOf("}.") + 1).replace(/^\./, "");
  return maybe(part === "norm" ? `block.ln.${own.slice(own.lastIndexOf(".") + 1)}` : `block.${own}`, name || id);
}
