/** The interface of a panel. */

import type { Service } from "../api/service";
import type { Detail } from "../detail/detail";
import type { Stage } from "../scene/stage";
import type { Scope } from "../state/store";
import type { Key } from "../i18n/text";

/** What a panel may use. */
export interface App {
  store: Scope;
  service: Service;
  stage: Stage;
  detail: Detail;
}

/** A part of the page that shows some of the state and dispatches actions. */
export interface Panel {
  id: string;
  /** bar: the top bar; side: a folding section; over: on top of the picture; foot: below it; aid: one at a time, chosen in
   * the rail. */
  place: "bar" | "side" | "over" | "foot" | "aid";
  title: Key; // also its name for screen readers
  icon?: string; // of an aid: an SVG path on a 24 × 24 grid
  open?: boolean; // whether a section of the side is unfolded initially
  mount(root: HTMLElement, app: App): void; // called with an empty root, again when the language changes; for an aid, on opening
}
