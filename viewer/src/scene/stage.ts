/** The picture: draws a frame when something has changed, and none while nothing has. */

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
import { Thrift } from "./thrift";

type StageUniforms = Record<"uHeap" | "uHues" | "uGround" | "uLine" | "uDim" | "uLog" | "uGain" | "uRange" | "uShown" | "uReveal", { value: unknown }>;

const BACKGROUND = "#0b0e14";
const SHEET_BELOW = 0.75; // pixels that a cell covers, under which a block is a sheet
const CELLS_ABOVE = 4; // pixels that a cell covers, above which cells have borders even before their values are there
const TINY = 0.02; // square pixels of a front, under which a block far away is left out
const SMALL = 25; // and under which it may be, where drawing is slow

/**
 * WebGL 2 as every device has it: to ask for an extension takes a wait for the graphics process. Only that for drawing
 * into textures of floats seems to be there: three.js wants it for any such texture, but here they are only read.
 */
function contextOf(canvas: HTMLCanvasElement): WebGL2RenderingContext | null {
  const context = canvas.getContext("webgl2", { alpha: false, antialias: true, powerPreference: "high-performance" });
  return context && Object.assign(context, { getExtension: (name: string) => (name === "EXT_color_buffer_float" ? {} : null) });
}

export class Stage {
  readonly heap = new Heap();
  readonly models: Models;
  readonly first: Promise<void>; // is fulfilled when the first frame is on the screen
  camera: Camera = { target: [0, 0, 0], distance: 1, azimuth: 0, elevation: 0 };
  frames = 0; // drawn so far
  ratio = Math.min(devicePixelRatio, 2); // pixels for each CSS pixel
  #renderer!: WebGLRenderer; // from the start
  #thrift: Thrift | null = null; // from the start
  #seen!: () => void;
  #scene = new Scene();
  #lens = new PerspectiveCamera();
  #uniforms: StageUniforms;
  #projection: Projection | null = null;
  #asked = 0;
  #waits = true; // for the first picture to be worth drawing
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

  /** Gets the graphics ready, which keeps the page busy. */
  start(): void {
    this.#resize();
    const { width, height } = this.store.state.viewport;
    Object.assign(this.canvas, { width: width * this.ratio, height: height * this.ratio });
    const context = contextOf(this.canvas);
    if (!context) return this.store.dispatch({ type: "graphics", graphics: "missing" });
    this.#renderer = new WebGLRenderer({ canvas: this.canvas, context });
    this.#watchLoss();
    this.#renderer.debug.checkShaderErrors = import.meta.env.DEV; // it takes waits for the graphics process
    this.#renderer.outputColorSpace = LinearSRGBColorSpace; // colours go to the screen as they are
    this.#renderer.setClearColor(raw(BACKGROUND));
    this.#renderer.compile(warmUp(this.#uniforms), this.#lens); // while the first answers are on their way
    this.#thrift = new Thrift(context, () => this.invalidate(), () => this.#seen());
    if (!this.#waits) this.#frame();
  }

  /** Systems take the graphics from pages, most of all from those that nobody looks at, and give them back later. */
  #watchLoss(): void {
    const tell = (graphics: "lost" | null): void => this.store.dispatch({ type: "graphics", graphics });
    this.canvas.addEventListener("webglcontextlost", () => tell("lost"));
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.#renderer.setClearColor(raw(BACKGROUND)); // all else three.js keeps
      tell(null);
      this.invalidate();
    });
  }

  /** The first picture is there as far as it is worth waiting for; until then, drawing would only keep its values waiting. */
  begin(): void {
    if (!this.#waits) return;
    this.#waits = false;
    this.#frame();
  }

  /** A frame is to be drawn. */
  invalidate(): void {
    if (this.#waits || !this.#thrift) return;
    this.#asked ||= requestAnimationFrame(() => {
      this.#asked = 0;
      this.#frame();
    });
  }

  #frame(): void {
    if (!this.#thrift) return;
    if (this.#thrift.busy) return this.invalidate();
    this.draw(this.#thrift.begin());
    this.#thrift.end();
  }

  /** Whether all is drawn, and nothing waits for it. */
  get still(): boolean {
    return !this.#waits && !this.#asked && !!this.#thrift && !this.#thrift.busy && !this.#thrift.owes;
  }

  /** What else is drawn with each frame, after it; the first time, once that is on the screen: nothing may keep it waiting. */
  onFrame(listener: () => void): void {
    this.#after.add(listener);
  }

  /** `share`: of what is small. */
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

  /** How the camera sees the scene: made once for each place of the camera and size of the window. */
  get projection(): Projection {
    const { viewport } = this.store.state;
    if (this.#projection?.camera !== this.camera || this.#projection.viewport !== viewport) this.#projection = new Projection(this.camera, viewport);
    return this.#projection;
  }

  /** Draws it with so many pixels for each CSS pixel while `use` looks at the canvases, and then as before. */
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

  /** How much of a layer can be seen decides how it is drawn. */
  #dress(shown: Shown, slab: Slab, share: number): void {
    const depth = present(shown.depths.get(slab), "the depth of a slab");
    if (!depth.inView) return slab.hide();
    const unit = this.pixelsAt(Math.max(depth.min, this.#lens.near));
    const cell = shown.layoutCell * unit;
    const style = slab.patches > 0 || slab.spoken || cell > CELLS_ABOVE ? "cells" : cell < SHEET_BELOW ? "sheet" : "plain";
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
