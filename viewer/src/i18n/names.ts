/** Translated names of blocks. */

import type { Kind } from "../layout/description";
import { textOr } from "./text";

/** The translation of the API's name or of the id; without one, the API's name. */
export function blockName({ id, name }: Pick<Kind, "id" | "name">): string {
  const own = id.slice(id.lastIndexOf("}.") + 1).replace(/^\./, "");
  const last = own.slice(own.lastIndexOf(".") + 1);
  return textOr(`block.${name}`, textOr(`block.${own}`, name || textOr(`block.${last}`, id)));
}
