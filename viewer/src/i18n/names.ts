/** What blocks are called: in the reader's language where we have a name, else as the service calls them. */

import type { Kind } from "../layout/description";
import { maybe } from "./text";

export function blockName({ id, name, part }: Pick<Kind, "id" | "name" | "part">): string {
  const own = id.slice(id.lastIndexOf("}.") + 1).replace(/^\./, "");
  return maybe(part === "norm" ? `block.ln.${own.slice(own.lastIndexOf(".") + 1)}` : `block.${own}`, name || id);
}
