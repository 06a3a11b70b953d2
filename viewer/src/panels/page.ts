/** The page's translated title, description and labels. */

import type { Figure } from "../state/state";
import type { Readable } from "../state/store";
import { refText } from "../state/address";
import { t, type Key } from "../i18n/text";
import { byId } from "./dom";

const PARTS: Record<string, Key> = { picture: "picture", side: "page.side", stage: "page.stage", foot: "page.foot" };

export function labelPage(store: Readable): void {
  document.querySelector('meta[name="description"]')?.setAttribute("content", t("page.description"));
  for (const [id, key] of Object.entries(PARTS)) byId(id).setAttribute("aria-label", t(key));
  setTitle(store.state.figures[0]);
}

export function setTitle(figure: Figure | undefined): void {
  document.title = figure ? `${figure.model?.name ?? refText(figure.ref)} · Cutaway` : t("page.title");
}
