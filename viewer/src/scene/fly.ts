/** Flies the camera to blocks of a model, the main one if not said otherwise, so that they fill the window. */

import type { Box } from "../layout/box";
import type { Readable } from "../state/store";
import { framing } from "./framing";
import type { Stage } from "./stage";

interface Flyer {
  store: Readable;
  stage: Stage;
}

interface Side {
  azimuth: number;
  elevation: number;
}

/** The camera's angles stay unless given. Unknown blocks are ignored. */
export function flyTo({ store, stage }: Flyer, blocks: readonly string[], side?: Side, figure = 0): void {
  const box = stage.models.shown[figure]?.figure.layout.around(blocks);
  if (box) flyToBox({ store, stage }, box, side, figure);
}

/** The same for a box of the model, in its layout's coordinates. */
export function flyToBox({ store, stage }: Flyer, box: Box, side?: Side, figure = 0): void {
  const shown = stage.models.shown[figure];
  if (!shown) return;
  const { pose, layoutCell } = shown;
  const seen = framing(pose.box(box), store.state.viewport, side ?? stage.camera);
  const least = 24 * layoutCell; // so that a single cell does not fill the window
  store.dispatch({ type: "camera", to: { ...seen, distance: Math.max(seen.distance * 1.15, least) } });
}
