/** Camera flights to blocks. */

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

/** Flies to blocks of a model so that they fill the window, from `side` or at the current angles. Ignores unknown blocks. */
export function flyTo({ store, stage }: Flyer, blocks: readonly string[], side?: Side, figure = 0): void {
  const box = stage.models.shown[figure]?.figure.layout.around(blocks);
  if (box) flyToBox({ store, stage }, box, side, figure);
}

/** Flies to a box in the layout's coordinates. */
export function flyToBox({ store, stage }: Flyer, box: Box, side?: Side, figure = 0): void {
  const shown = stage.models.shown[figure];
  if (!shown) return;
  const { pose, layoutCell } = shown;
  const seen = framing(pose.box(box), store.state.viewport, side ?? stage.camera);
  const least = 24 * layoutCell; // a single cell must not fill the window
  store.dispatch({ type: "camera", to: { ...seen, distance: Math.max(seen.distance * 1.15, least) } });
}
