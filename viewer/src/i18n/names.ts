/** What blocks are called: in the reader's language where we have a name, else as the service calls them. */

import type { Kind } from "../layout/layout";
import { maybe } from "./text";

export function blockName({ id, name }: Pick<Kind, "id" | "name">): string {
  const own = id.replace("blocks.{layer}.", "").replace("attn.heads.{head}.", "").replace(/^(ln1|ln2|ln_final)\./, "ln.");
  return maybe(`block.${own}`, name || id);
}
