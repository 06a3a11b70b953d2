/** Drives the picture during the tour: camera, highlighted blocks, animated cells. */

import { item } from "../checked/item";
import type { Service } from "../api/service";
import type { Flow } from "../layout/pose";
import { flyToBox } from "../scene/fly";
import type { Stage } from "../scene/stage";
import type { Bar, Figure, Highlight } from "../state/state";
import type { Store } from "../state/store";
import type { Camera, CellAt } from "../state/view";
import { masks } from "../reading/formula";
import { nth, operands, type Formula } from "./fill";
import { computed } from "../state/player";
import { sight } from "./sight";
import { stepOf, type Side, type TourStep } from "../state/steps";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const NONE: never[] = []; // always the same array, so that subscribers see no change
const TICK = 250; // milliseconds between ticks where nothing moves

/** A step, with blocks of the main model. */
interface Scene {
  step: TourStep;
  fills: string[]; // blocks computed in this step
  lit: string[]; // blocks they are computed from
  formula: Formula | null; // of the first of `fills`, once it is loaded
}

export class Director {
  #scene: Scene | null = null;
  #loading = new AbortController();
  #clock = 0; // when the last tick was
  #linked: boolean; // whether the camera comes from a link
  #cameraSet: Camera | null = null; // the camera of this step; the user may have moved it since

  constructor(
    private readonly store: Store,
    private readonly service: Service,
    private readonly stage: Stage,
  ) {
    this.#linked = store.state.view.camera !== null;
    // One subscription for both: a link's camera applies to the first call only.
    store.subscribe(({ view, figures }) => `${view.tour} in ${figures[0]?.layout.facts.id}`, () => this.#startStep());
    store.subscribe(({ figures }) => figures[0]?.trace, () => this.#update());
    store.subscribe(({ player }) => player.share, () => this.#update());
    store.subscribe(({ viewport }) => viewport, () => {
      if (this.#scene && store.state.view.camera === this.#cameraSet) this.#aimCamera(this.#scene); // the window was resized
    });
    store.subscribe(({ highlight }) => highlight === null, (gone) => gone && this.#update());
    store.subscribe(({ player }) => player.playing, (playing) => playing && this.#run());
  }

  #run(): void {
    this.#clock = performance.now();
    const tick = (): void => {
      if (!this.store.state.player.playing) return;
      const now = performance.now();
      const seconds = Math.min((now - this.#clock) / 1000, 1); // a hidden page resumes at the same time of the step
      this.#clock = now;
      if (this.#scene) this.store.dispatch({ type: "tour", command: { do: "tick", seconds } });
      next();
    };
    const next = (): unknown => (still.matches ? setTimeout(tick, TICK) : requestAnimationFrame(tick));
    next();
  }

  #startStep(): void {
    this.#loading.abort();
    const { view, figures } = this.store.state;
    const [step, before] = [stepOf(view.tour, figures), this.#scene];
    const layout = figures[0]?.layout;
    this.#scene = null;
    if (before?.step.moves === "tokens") this.store.dispatch({ type: "view", change: { step: null } });
    if (!step || !layout) {
      if (before && !step) this.#endTour();
      return;
    }
    const existing = (ids: string[]): string[] => ids.filter((id) => layout.row(id) !== null);
    const { computed: fills, read } = layout.description.blocksOf(step);
    this.#scene = { step, fills: existing(fills), lit: existing(read), formula: null };
    if (!this.#linked) this.#aimCamera(this.#scene);
    this.#linked = false;
    this.#update();
    void this.#loadFormula(this.#scene);
  }

  #endTour(): void {
    this.store.dispatch({ type: "highlight", highlight: null });
    this.store.dispatch({ type: "camera", to: null });
  }

  #aimCamera({ step, fills, lit }: Scene): void {
    const [figure] = this.store.state.figures;
    if (!figure) return;
    const { layout, trace } = figure;
    const cell = step.at === "chosen" ? this.#chosen()?.cell : null;
    const box = sight(layout, [...fills, ...lit], cell, trace !== null);
    if (box) flyToBox({ store: this.store, stage: this.stage }, box, step.side && turned(step.side, this.stage.models.flow));
    else this.store.dispatch({ type: "camera", to: null });
    this.#cameraSet = this.store.state.view.camera;
  }

  /** Loads the formula of the computed blocks. */
  async #loadFormula(scene: Scene): Promise<void> {
    const [target] = scene.fills;
    const layout = this.store.state.figures[0]?.layout;
    if (!layout) return;
    const row = target === undefined ? null : layout.row(target);
    if (row === null) return;
    this.#loading = new AbortController();
    const { signal } = this.#loading;
    const own = item(layout.layer, row);
    const head = layout.description.headOf(layout.kindAt(row).group, item(layout.head, row));
    const layer = own >= 0 ? own : row < item(layout.spans, 0).end ? 0 : layout.description.layers() - 1;
    try {
      const { blocks } = await this.service.layoutFormulas(`/v1/layouts/${layout.facts.id}`, layer, head, signal);
      scene.formula = blocks?.find(({ id }) => id === target)?.formula ?? null;
      if (scene === this.#scene) this.#update();
    } catch (error) {
      if (!signal.aborted) console.warn(error); // the animation then has no operands
    }
  }

  #update(): void {
    const [figure] = this.store.state.figures;
    if (!this.#scene || !figure) return;
    const share = still.matches ? 1 : computed(this.store.state.player.share);
    const { step, fills, lit } = this.#scene;
    if (step.moves === "tokens") this.#generate(share);
    const light = step.moves === "layers" ? this.#layer(figure, share) : lit;
    const highlight: Highlight = { blocks: fills, lit: light, cells: this.#cells(this.#scene, figure, share), dim: fills.length + light.length > 0, reveal: share };
    this.store.dispatch({ type: "highlight", highlight });
  }

  /** The cell being computed and its operands; in the step "choose", the chosen token. */
  #cells({ step, fills, formula }: Scene, { layout, trace }: Figure, share: number): Bar[] {
    const chosen = step.id === "choose" && this.#chosen();
    if (chosen) return [chosen];
    const [block] = fills;
    const row = block === undefined ? null : layout.row(block);
    if (block === undefined || row === null || share <= 0 || share >= 1) return NONE;
    const cells = layout.cellsOf(row);
    const cell = nth(Math.min(Math.floor(share * cells[0] * cells[1]), cells[0] * cells[1] - 1), cells, layout.kindAt(row).dims);
    const tokens = trace && [...trace.tokens, ...(trace.generated ?? []).map(({ token }) => token)];
    const from = formula && !masks(formula, cell) ? operands(formula, cell, tokens?.[cell[0]] ?? null) : [];
    return [{ figure: 0, block, cell }, ...from];
  }

  /** The probability of the first generated token. */
  #chosen(): CellAt | null {
    const [figure] = this.store.state.figures;
    const [[chosen], block] = [figure?.trace?.generated ?? [], figure?.layout.blockOf("probs")];
    return chosen && block ? { figure: 0, block, cell: [chosen.position, chosen.token, 0] } : null;
  }

  #litLayer = { layer: -1, ids: [] as string[] };

  /** The blocks of the current layer; the same array while the layer is the same. */
  #layer({ layout }: Figure, share: number): string[] {
    const spans = layout.spans.filter(({ layer }) => layer >= 0);
    const { layer, start, end } = item(spans, Math.min(Math.floor(share * spans.length), spans.length - 1));
    if (share >= 1) return NONE;
    if (this.#litLayer.layer !== layer) this.#litLayer = { layer, ids: Array.from({ length: end - start }, (_, n) => layout.id(start + n)) };
    return this.#litLayer.ids;
  }

  /** Shows the generation token by token. */
  #generate(share: number): void {
    const last = this.store.state.figures[0]?.trace?.generated?.length ?? 0;
    const step = Math.floor(share * (last + 1));
    const change = { step: step >= last ? null : step };
    if (change.step !== this.store.state.view.step) this.store.dispatch({ type: "view", change });
  }
}

/** Converts a side for flow to the right to the current flow. */
function turned(side: Side, flow: Flow): Side {
  return flow === "right" ? side : { azimuth: side.elevation, elevation: -side.azimuth };
}
