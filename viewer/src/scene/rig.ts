/** Camera controls: mouse, touch, keyboard, and flights to the state's camera. */

import type { Store } from "../state/store";
import type { Camera } from "../state/view";
import { along, basis, between, framing, FIELD_OF_VIEW } from "./framing";
import type { Stage } from "./stage";

const FLIGHT = 900; // milliseconds
const STEEPEST = 1.45; // radians from level
const SPEED = { orbit: 0.006, wheel: 0.0016, key: 60 }; // a pixel, a pixel, pixels a press

const ARROWS: Record<string, readonly [number, number]> = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const still = matchMedia("(prefers-reduced-motion: reduce)");

interface Touch {
  x: number;
  y: number;
}

export class Rig {
  #goal: Camera | null = null; // the state's camera, as last seen here
  #flight = 0;
  #down = new Map<number, Touch>();
  #settled = 0;

  constructor(
    private readonly stage: Stage,
    private readonly store: Store,
  ) {
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"] as const) canvas.addEventListener(end, (event) => this.#down.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    store.subscribe(({ view }) => view.camera, (camera) => this.#follow(camera));
    store.subscribe(({ figures }) => figures, () => this.#home(false));
    store.subscribe(() => stage.models.flow, () => this.#home(false));
    store.subscribe(({ viewport }) => viewport, () => this.#home(false));
  }

  /** Whether the camera is in flight. */
  get flying(): boolean {
    return this.#flight !== 0;
  }

  #follow(camera: Camera | null): void {
    if (camera === this.#goal && camera) return; // it was set here, by hand
    this.#goal = camera;
    if (camera) this.#fly(camera);
    else this.#home(true);
  }

  /** Shows everything, unless the state has a camera. */
  #home(fly: boolean): void {
    if (this.store.state.view.camera) return;
    const box = this.stage.models.bounds();
    if (!box) return;
    const all = framing(box, this.store.state.viewport);
    if (fly) this.#fly(all);
    else this.#put(all);
  }

  #fly(to: Camera): void {
    cancelAnimationFrame(this.#flight);
    this.#flight = 0;
    const from = this.stage.camera;
    if (still.matches || this.stage.frames < 2) return this.#put(to);
    const began = performance.now();
    const step = (now: number): void => {
      const t = Math.min((now - began) / FLIGHT, 1);
      this.#flight = t < 1 ? requestAnimationFrame(step) : 0;
      this.#put(t < 1 ? between(from, to, Math.max(t, 0)) : to);
    };
    this.#flight = requestAnimationFrame(step);
  }

  #put(camera: Camera): void {
    this.stage.camera = camera;
    this.stage.invalidate();
  }

  /** Moves the camera by hand: immediately, and in the state when it rests. */
  #move(camera: Camera): void {
    cancelAnimationFrame(this.#flight);
    this.#flight = 0;
    this.#put({ ...camera, elevation: Math.max(-STEEPEST, Math.min(STEEPEST, camera.elevation)) });
    clearTimeout(this.#settled);
    this.#settled = window.setTimeout(() => {
      this.#goal = this.stage.camera;
      this.store.dispatch({ type: "camera", to: this.#goal });
    }, 150);
  }

  orbit(dx: number, dy: number): void {
    const { camera } = this.stage;
    this.#move({ ...camera, azimuth: camera.azimuth - dx * SPEED.orbit, elevation: camera.elevation + dy * SPEED.orbit });
  }

  pan(dx: number, dy: number): void {
    const { camera } = this.stage;
    const { right, up } = basis(camera);
    const unit = 1 / this.stage.pixelsAt(camera.distance);
    this.#move({ ...camera, target: along(along(camera.target, right, -dx * unit), up, dy * unit) });
  }

  /** Zooms in by a factor below 1, around a point of the canvas. */
  zoom(factor: number, x: number, y: number): void {
    const { camera } = this.stage;
    const { width, height } = this.store.state.viewport;
    const slope = Math.tan(FIELD_OF_VIEW / 2) * camera.distance;
    const { right, up } = basis(camera);
    const [across, above] = [((2 * x) / width - 1) * slope * (width / height), (1 - (2 * y) / height) * slope];
    const distance = Math.max(camera.distance * factor, 4);
    const by = 1 - distance / camera.distance;
    this.#move({ ...camera, distance, target: along(along(camera.target, right, across * by), up, above * by) });
  }

  #press(event: PointerEvent): void {
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.#down.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  }

  /** The left button pans; the right button, Shift, Ctrl or one finger rotates; two fingers zoom, pan and twist. */
  #drag(event: PointerEvent): void {
    const last = this.#down.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.offsetX - last.x, event.offsetY - last.y];
    const other = [...this.#down].find(([id]) => id !== event.pointerId)?.[1];
    if (other) this.#pinch(last, { x: event.offsetX, y: event.offsetY }, other);
    else if (event.pointerType === "touch" || event.buttons & 2 || event.shiftKey || event.ctrlKey) this.orbit(dx, dy);
    else if (dx || dy) this.pan(dx, dy);
    this.#down.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
  }

  /** One of two fingers moves: the point under each finger stays under it. */
  #pinch(from: Touch, to: Touch, other: Touch): void {
    const apart = (at: Touch): number => Math.hypot(at.x - other.x, at.y - other.y) || 1;
    const angle = (at: Touch): number => Math.atan2(at.y - other.y, at.x - other.x);
    this.zoom(apart(from) / apart(to), (to.x + other.x) / 2, (to.y + other.y) / 2);
    this.pan((to.x - from.x) / 2, (to.y - from.y) / 2);
    const turn = angle(to) - angle(from);
    this.orbit(-Math.atan2(Math.sin(turn), Math.cos(turn)) / SPEED.orbit, 0);
  }

  #wheel(event: WheelEvent): void {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    this.zoom(Math.exp(Math.max(-300, Math.min(300, pixels)) * SPEED.wheel), event.offsetX, event.offsetY);
  }

  #key(event: KeyboardEvent): void {
    const { width, height } = this.store.state.viewport;
    const [dx, dy] = ARROWS[event.key] ?? [0, 0];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if ((dx || dy) && !event.shiftKey && this.store.state.view.pinned.length) return; // arrows move the pinned cell
    const moves = dx !== 0 || dy !== 0;
    if (moves && event.shiftKey) this.orbit(-dx * SPEED.key, -dy * SPEED.key);
    else if (moves) this.pan(dx * SPEED.key, dy * SPEED.key);
    else if (event.key === "+" || event.key === "=") this.zoom(0.8, width / 2, height / 2);
    else if (event.key === "-" || event.key === "_") this.zoom(1.25, width / 2, height / 2);
    else if (event.key === "Home" || event.key === "0") this.store.dispatch({ type: "camera", to: null });
    else return;
    event.preventDefault();
  }
}
