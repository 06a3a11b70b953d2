/** Screenshots of the picture. */

import { penOf } from "./pen";
import type { Stage } from "./stage";

const RATIO = 2; // pixels of the file for each CSS pixel

/** The picture with its overlay as a PNG, at twice the resolution. */
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
