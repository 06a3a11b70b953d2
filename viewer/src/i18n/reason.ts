/** The text of an error. */

import { Refused } from "../api/client";
import { textOr, t, currentLanguage } from "./text";

/** The server's message, which is in English; in other languages after a translated summary. */
export function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  if (currentLanguage() === "en") return message;
  const why = error instanceof Refused ? textOr(`refused.${error.status}`, t("refused.any")) : t("refused.any");
  return t("refused", { why, message });
}
