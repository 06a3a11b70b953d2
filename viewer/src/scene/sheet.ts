/** The drawing context of the overlay. */

import type { Store } from "../state/store";
import type { Room } from "./labels";
import type { Stage } from "./stage";

export interface Sheet {
  pen: CanvasRenderingContext2D;
  room: Room; // for the texts of this frame
  stage: Stage;
  store: Store;
}
