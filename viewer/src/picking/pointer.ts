/** Pointer events on the picture: hover, pin and clear. */

import type { Stage } from "../scene/stage";
import type { Store } from "../state/store";
import { pick } from "../scene/pick";

const CLICK = 5; // the maximum movement of a click, in pixels

export function watchPointer(stage: Stage, store: Store): void {
  const { canvas } = stage;
  let pressed: { x: number; y: number } | null = null;
  let over: { x: number; y: number } | null = null;
  let frame = 0;

  const hover = (): void => {
    frame = 0;
    store.dispatch({ type: "hover", at: over && pick(stage.models.shown, stage.ray(over.x, over.y)) });
  };
  const move = (at: typeof over): void => {
    over = at;
    frame ||= requestAnimationFrame(hover);
  };

  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) move({ x: event.offsetX, y: event.offsetY });
  });
  canvas.addEventListener("pointerleave", () => move(null));
  canvas.addEventListener("pointerdown", (event) => {
    const tap = event.button === 0 && event.isPrimary; // a second finger makes it no tap
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
