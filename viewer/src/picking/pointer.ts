/** Pointer, finger and keys on the picture, as what they mean: this cell, that cell for good, none. */

import type { Stage } from "../scene/stage";
import type { Store } from "../state/store";
import { pick } from "../scene/pick";

const CLICK = 5; // pixels that a click may move

export function watchPointer(stage: Stage, store: Store): void {
  const { canvas } = stage;
  let pressed: { x: number; y: number } | null = null;
  let over: { x: number; y: number } | null = null;
  let asked = 0;

  const hover = (): void => {
    asked = 0;
    store.dispatch({ type: "hover", at: over && pick(stage.models.shown, stage.ray(over.x, over.y)) });
  };
  const ask = (at: typeof over): void => {
    over = at;
    asked ||= requestAnimationFrame(hover);
  };

  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) ask({ x: event.offsetX, y: event.offsetY });
  });
  canvas.addEventListener("pointerleave", () => ask(null));
  canvas.addEventListener("pointerdown", (event) => {
    const tap = event.button === 0 && event.isPrimary; // a second finger ends what might have been one
    pressed = tap ? { x: event.offsetX, y: event.offsetY } : null;
  });
  canvas.addEventListener("pointerup", (event) => {
    const moved = pressed && Math.hypot(event.offsetX - pressed.x, event.offsetY - pressed.y);
    pressed = null;
    if (moved === null || moved > CLICK) return;
    const at = pick(stage.models.shown, stage.ray(event.offsetX, event.offsetY));
    store.dispatch(at ? { type: "pin", at } : { type: "clear" });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") store.dispatch({ type: "clear" });
  });
  store.subscribe((state) => state.hovered !== null, (any) => canvas.classList.toggle("over-cell", any));
}
