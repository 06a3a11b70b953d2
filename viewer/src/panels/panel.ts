/** A panel: a part of the page that shows some of the state and dispatches actions. */

import type { Service } from "../api/service";
import type { Detail } from "../detail/detail";
import type { Stage } from "../scene/stage";
import type { Scope } from "../state/store";
import type { Key } from "../i18n/text";

/** What a panel may use: the state, and the parts of the page that have more than that. */
export interface App {
  store: Scope;
  service: Service;
  stage: Stage;
  detail: Detail;
}

export interface Panel {
  id: string;
  /** bar: the line above; side: a section that folds, in order; over: on top of the picture; foot: below it; aid: one at a
   * time, chosen in the rail. */
  place: "bar" | "side" | "over" | "foot" | "aid";
  title: Key; // of the section, and its name for screen readers
  icon?: string; // of an aid: what the pen draws, in a square of 24
  open?: boolean; // whether a section of the side is unfolded at first
  mount(root: HTMLElement, app: App): void; // called again, with an empty root, when the language changes; an aid: whenever it is opened
}
