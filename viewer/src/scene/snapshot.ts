/** The current picture as a PNG, with names and arrows, at twice the resolution. */

import { penOf } from "./pen";
import type { Stage } from "./stage";

const RATIO = 2; // pixels of the file for each CSS pixel

/** A PNG. `overlay` is what is drawn over the picture. */
export async function snapshot(stage: Stage, overlay: HTMLCanvasElement): Promise<Blob> {
  const file = document.createElement("canvas");
  stage.drawnAt(RATIO, () => {
    Object.assign(file, { width: stage.canvas.width, height: stage.canvas.height });
    const pen = penOf(file);
    for (const layer of [stage.canvas, overlay]) pen.drawImage(layer, 0, 0, file.width, file.height);
  });
  return new Promise((resolve, reject) => {
    file.toBlob((png) => (png ? resolve(png) : reject(new Error("the picture could not be encoded"))), "image/png");
  });
}
