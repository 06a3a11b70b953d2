/** Names of blocks: translated where the locales have the service's name or the id, otherwise the service's. */

import type { Kind } from "../layout/description";
import { maybe } from "./text";

export function blockName({ id, name }: Pick<Kind, "id" | "name">): string {
  const own = id.slice(id.lastIndexOf("}.") + 1).replace(/^\./, "");
  const last = own.slice(own.lastIndexOf(".") + 1);
  return maybe(`block.${name}`, maybe(`block.${own}`, name || maybe(`block.${last}`, id)));
}
