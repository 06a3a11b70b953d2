/** The 2D context of a canvas. */

import { present } from "../checked/item";

export function penOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  return present(canvas.getContext("2d"), "the canvas's 2D context");
}
