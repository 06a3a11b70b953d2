/** Flies the camera to blocks of the main model, so that they fill the window. */

import type { Box } from "../layout/layout";
import type { Readable } from "../state/store";
import { framing } from "./framing";
import type { Stage } from "./stage";

interface Flyer {
  store: Readable;
  stage: Stage;
}

/** The camera's angles stay unless given. Blocks that there are not count for nothing. */
export function flyTo({ store, stage }: Flyer, blocks: readonly string[], side?: { azimuth: number; elevation: number }): void {
  const box = stage.models.shown[0]?.figure.layout.around(blocks);
  if (box) flyToBox({ store, stage }, box, side);
}

/** The same for a box of the main model, in its layout's coordinates. */
export function flyToBox({ store, stage }: Flyer, box: Box, side?: { azimuth: number; elevation: number }): void {
  const [main] = stage.models.shown;
  const { width, height } = store.state.viewport;
  const seen = framing(main.pose.box(box), width / height, side ?? stage.camera);
  const least = 24 * main.layoutCell; // so that a single cell does not fill the window
  store.dispatch({ type: "camera", to: { ...seen, distance: Math.max(seen.distance * 1.15, least) } });
}
