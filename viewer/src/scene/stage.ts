/** The picture: draws a frame only when something has changed. */

import { present } from "../checked/item";
import { LinearSRGBColorSpace, PerspectiveCamera, Scene, Vector3, WebGLRenderer } from "three";

import type { Store } from "../state/store";
import { positionsShown } from "../state/state";
import type { Camera } from "../state/view";
import { FIELD_OF_VIEW } from "./framing";
import { Heap } from "./heap";
import { warmUp, type Slab } from "./blocks";
import { Models, type Shown } from "./models";
import { PALETTES, raw } from "./palette";
import type { Point } from "../layout/box";
import { Projection, type Ray } from "./projection";
import { FrameBudget } from "./budget";

type StageUniforms = Record<"uHeap" | "uHues" | "uGround" | "uLine" | "uDim" | "uLog" | "uGain" | "uRange" | "uShown" | "uReveal", { value: unknown }>;

const BACKGROUND = "#0b0e14";
const SHEET_BELOW = 0.75; // pixels per cell, below which a block is drawn as a sheet
const CELLS_ABOVE = 4; // pixels per cell, above which cells are drawn even without values
const TINY = 0.02; // square pixels of a front, below which a distant block is not drawn
const SMALL = 25; // the same where drawing is slow

/**
 * A WebGL 2 context without extensions, as querying one waits for the graphics process. Only the one for rendering to
 * float textures is reported: three.js requires it for float textures, although here they are only read.
 */
function contextOf(canvas: HTMLCanvasElement): WebGL2RenderingContext | null {
  const context = canvas.getContext("webgl2", { alpha: false, antialias: true, powerPreference: "high-performance" });
  return context && Object.assign(context, { getExtension: (name: string) => (name === "EXT_color_buffer_float" ? {} : null) });
}

export class Stage {
  readonly heap = new Heap();
  readonly models: Models;
  readonly first: Promise<void>; // resolves when the first frame is on the screen
  camera: Camera = { target: [0, 0, 0], distance: 1, azimuth: 0, elevation: 0 };
  frames = 0; // drawn so far
  ratio = Math.min(devicePixelRatio, 2); // pixels for each CSS pixel
  #renderer!: WebGLRenderer; // set by `start`
  #budget: FrameBudget | null = null; // set by `start`
  #seen!: () => void;
  #scene = new Scene();
  #lens = new PerspectiveCamera();
  #uniforms: StageUniforms;
  #projection: Projection | null = null;
  #requested = 0;
  #waits = true; // until the first values are loaded
  #after = new Set<() => void>();

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly store: Store,
  ) {
    this.first = new Promise((resolve) => (this.#seen = resolve));
    this.#uniforms = {
      uHeap: { value: this.heap.texture },
      uHues: { value: [] },
      uGround: { value: [] },
      uLine: { value: raw(BACKGROUND) },
      uDim: { value: false },
      uLog: { value: 0 },
      uGain: { value: 1 },
      uRange: { value: 0 },
      uShown: { value: 1e9 },
      uReveal: { value: 1 },
    };
    this.models = new Models(this.#scene, this.#uniforms, store);
    this.#lens.matrixAutoUpdate = true;
    store.subscribe(({ view }) => view.colour, () => this.#recolour());
    store.subscribe(({ highlight }) => highlight?.figure, () => this.#highlight());
    store.subscribe(({ highlight }) => highlight?.blocks, () => this.#highlight());
    store.subscribe(({ highlight }) => highlight?.lit, () => this.#highlight());
    store.subscribe(({ highlight }) => highlight?.dim ?? false, (dim) => this.#set("uDim", dim));
    store.subscribe(({ highlight }) => highlight?.reveal ?? 1, (reveal) => this.#set("uReveal", reveal));
    store.subscribe(({ highlight }) => highlight?.cells, () => this.invalidate());
    store.subscribe(positionsShown, (shown) => this.#set("uShown", shown ?? 1e9));
    store.subscribe((state) => state.figures, () => this.invalidate());
    store.subscribe(({ view }) => view.flow, () => this.invalidate());
    new ResizeObserver(() => this.#resize()).observe(present(canvas.parentElement, "the stage"));
    this.#resize();
  }

  /** Initialises the graphics, which blocks the page for a moment. */
  start(): void {
    this.#resize();
    const { width, height } = this.store.state.viewport;
    Object.assign(this.canvas, { width: width * this.ratio, height: height * this.ratio });
    const context = contextOf(this.canvas);
    if (!context) return this.store.dispatch({ type: "graphics", graphics: "missing" });
    this.#renderer = new WebGLRenderer({ canvas: this.canvas, context });
    this.#watchLoss();
    this.#renderer.debug.checkShaderErrors = import.meta.env.DEV; // the check waits for the graphics process
    this.#renderer.outputColorSpace = LinearSRGBColorSpace; // no conversion of colours
    this.#renderer.setClearColor(raw(BACKGROUND));
    this.#renderer.compile(warmUp(this.#uniforms), this.#lens); // while the first responses are loading
    this.#budget = new FrameBudget(context, () => this.invalidate(), () => this.#seen());
    if (!this.#waits) this.#frame();
  }

  /** Handles the loss of the graphics context, which the system may take from a page and restore later. */
  #watchLoss(): void {
    const report = (graphics: "lost" | null): void => this.store.dispatch({ type: "graphics", graphics });
    this.canvas.addEventListener("webglcontextlost", () => report("lost"));
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.#renderer.setClearColor(raw(BACKGROUND)); // three.js restores the rest
      report(null);
      this.invalidate();
    });
  }

  /** Starts drawing. Before the first values are loaded, a frame would only delay them. */
  begin(): void {
    if (!this.#waits) return;
    this.#waits = false;
    this.#frame();
  }

  /** Requests a frame. */
  invalidate(): void {
    if (this.#waits || !this.#budget) return;
    this.#requested ||= requestAnimationFrame(() => {
      this.#requested = 0;
      this.#frame();
    });
  }

  #frame(): void {
    if (!this.#budget) return;
    if (this.#budget.busy) return this.invalidate();
    this.draw(this.#budget.begin());
    this.#budget.end();
  }

  /** Whether the last frame is complete and no other is pending. */
  get still(): boolean {
    return !this.#waits && !this.#requested && !!this.#budget && !this.#budget.busy && !this.#budget.incomplete;
  }

  /** Calls a listener after each frame; after the first, once it is on the screen, so as not to delay it. */
  onFrame(listener: () => void): void {
    this.#after.add(listener);
  }

  /** Draws a frame with a share of the small blocks. */
  draw(share = 1): void {
    this.#aim();
    for (const shown of this.models.shown) for (const slab of shown.blocks.slabs) this.#dress(shown, slab, share);
    this.#renderer.render(this.#scene, this.#lens);
    this.frames++;
    if (this.frames > 1) this.#follow();
    else void this.first.then(() => this.#follow());
  }

  #follow(): void {
    for (const listener of this.#after) listener();
  }

  ray(x: number, y: number): Ray {
    return this.projection.ray(x, y);
  }

  project(point: Point): ReturnType<Projection["project"]> {
    return this.projection.project(point);
  }

  pixelsAt(depth: number): number {
    return this.projection.pixelsAt(depth);
  }

  /** The current projection, cached for the camera and window size. */
  get projection(): Projection {
    const { viewport } = this.store.state;
    if (this.#projection?.camera !== this.camera || this.#projection.viewport !== viewport) this.#projection = new Projection(this.camera, viewport);
    return this.#projection;
  }

  /** Draws at another pixel ratio while `use` reads the canvases. */
  drawnAt(ratio: number, use: () => void): void {
    const { width, height } = this.store.state.viewport;
    const size = (to: number): void => {
      this.ratio = to;
      this.#renderer.setDrawingBufferSize(width, height, to);
      this.draw();
    };
    const usual = this.ratio;
    size(ratio);
    use();
    size(usual);
  }

  #aim(): void {
    const { width, height } = this.store.state.viewport;
    const { right, up, back } = this.projection.basis;
    this.#lens.position.fromArray(this.projection.eye);
    this.#lens.matrix.makeBasis(new Vector3(...right), new Vector3(...up), new Vector3(...back));
    this.#lens.quaternion.setFromRotationMatrix(this.#lens.matrix);
    const { nearest, farthest } = this.models.measure(this.projection);
    this.#lens.near = Math.max(nearest * 0.95, this.camera.distance * 0.01, 0.1);
    this.#lens.far = Math.max(farthest * 1.05, this.#lens.near * 2);
    this.#lens.fov = (FIELD_OF_VIEW * 180) / Math.PI;
    this.#lens.aspect = width / height;
    this.#lens.updateProjectionMatrix();
    this.#lens.updateMatrixWorld(true);
  }

  /** Chooses the style of a layer by the size of its cells on the screen. */
  #dress(shown: Shown, slab: Slab, share: number): void {
    const depth = present(shown.depths.get(slab), "the depth of a slab");
    if (!depth.inView) return slab.hide();
    const unit = this.pixelsAt(Math.max(depth.min, this.#lens.near));
    const cell = shown.layoutCell * unit;
    const style = slab.patches > 0 || slab.highlighted || cell > CELLS_ABOVE ? "cells" : cell < SHEET_BELOW ? "sheet" : "plain";
    shown.blocks.dress(slab, style, { tiny: TINY / unit ** 2, small: SMALL / unit ** 2, share, sparing: this.frames > 0 });
  }

  #recolour(): void {
    const { palette, scale, gain, range } = this.store.state.view.colour;
    const { hues, ground } = PALETTES[palette];
    this.#uniforms.uHues.value = hues.map(raw);
    this.#uniforms.uGround.value = ground.map(raw);
    this.#uniforms.uLog.value = scale === "log" ? 1 : 0;
    this.#uniforms.uRange.value = range ?? 0;
    this.#set("uGain", gain);
  }

  #highlight(): void {
    this.models.emphasise(this.store.state.highlight);
    this.invalidate();
  }

  #set(name: keyof StageUniforms, value: unknown): void {
    this.#uniforms[name].value = value;
    this.invalidate();
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = present(this.canvas.parentElement, "the stage");
    if (!width || !height) return;
    const { viewport } = this.store.state;
    if (viewport.width === width && viewport.height === height) return;
    this.ratio = Math.min(devicePixelRatio, 2);
    this.#renderer?.setDrawingBufferSize(width, height, this.ratio);
    this.store.dispatch({ type: "viewport", width, height });
    this.invalidate();
  }
}
