/** The text of an error: the server's message, which is English, after a translated summary. */

import { Refused } from "../api/client";
import { maybe, t, used } from "./text";

export function reason(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error);
  if (used() === "en") return said;
  return t("refused", { why: error instanceof Refused ? maybe(`refused.${error.status}`, t("refused.any")) : t("refused.any"), said });
}
