/** The models of the scene, updated with the state's figures. */

import { item } from "../checked/item";
import type { Scene } from "three";

import { unite, type Box } from "../layout/box";
import type { Layout } from "../layout/layout";
import type { Figure, Highlight, State } from "../state/state";
import type { Store } from "../state/store";
import { Blocks, type Slab, type Uniforms } from "./blocks";
import { Pose, arrange, type Flow } from "../layout/pose";
import type { Projection } from "./projection";

const SMALL_VOCABULARY = 1000; // tokens

export interface Depth {
  min: number; // distance in front of the camera
  max: number;
  inView: boolean;
}

/** A figure, its blocks, and its pose in the scene. */
export interface Shown {
  figure: Figure;
  blocks: Blocks;
  pose: Pose;
  layoutCell: number; // side of a cell
  depths: Map<Slab, Depth>;
}

export class Models {
  shown: Shown[] = [];

  constructor(
    private readonly scene: Scene,
    private readonly uniforms: Uniforms,
    private readonly store: Store,
  ) {
    store.subscribe((state) => state.figures, () => this.#follow());
    store.subscribe(flowOf, () => this.#arrange());
  }

  get flow(): Flow {
    return flowOf(this.store.state);
  }

  /** The box around all models' layers, input and output in the scene; without large vocabularies, which would dwarf them. */
  bounds(): Box | null {
    const boxes = this.shown.flatMap(({ blocks, pose }) => {
      const layers = blocks.slabs.filter(({ span }) => span.layer >= 0);
      return layers.map(({ box }) => pose.box(box));
    });
    const [main] = this.shown;
    const ends = main && endsOf(main.figure.layout);
    if (ends) boxes.push(main.pose.box(ends));
    return boxes.length ? unite(boxes) : null;
  }

  /** Emphasises the highlighted blocks of a model, and keeps its lit ones from being dimmed. */
  emphasise(highlight: Highlight | null): void {
    const { figure: chosen = 0, blocks: highlighted = [], lit = [] } = highlight ?? {};
    this.shown.forEach(({ figure: { layout }, blocks }, n) => {
      const rows = (of: readonly string[]): number[] => (n === chosen ? of.map((id) => layout.row(id)).filter((row) => row !== null) : []);
      blocks.emphasise(rows(highlighted), rows(lit));
    });
  }

  /** Updates which layers are in view and their depths; returns the smallest and the largest depth. */
  measure(projection: Projection): { nearest: number; farthest: number } {
    let [nearest, farthest] = [Infinity, 0];
    for (const { blocks, pose, depths } of this.shown)
      for (const slab of blocks.slabs) {
        const depth = depthOf(pose.box(slab.box), projection);
        depths.set(slab, depth);
        if (!depth.inView) continue;
        nearest = Math.min(nearest, depth.min);
        farthest = Math.max(farthest, depth.max);
      }
    return { nearest: nearest === Infinity ? 0 : nearest, farthest };
  }

  #follow(): void {
    const { figures } = this.store.state;
    const old = this.shown;
    const taken = new Set<Blocks>();
    this.shown = figures.map((figure) => {
      const known = old.find((shown) => shown.figure.layout === figure.layout && !taken.has(shown.blocks));
      if (known) {
        const { blocks, pose, layoutCell, depths } = known;
        taken.add(blocks);
        return { figure, blocks, pose, layoutCell, depths };
      }
      const blocks = new Blocks(figure.layout, this.uniforms);
      this.scene.add(blocks.group);
      return { figure, blocks, pose: new Pose("right"), layoutCell: figure.layout.cell, depths: new Map() };
    });
    for (const { blocks } of old)
      if (!this.shown.some((shown) => shown.blocks === blocks)) {
        this.scene.remove(blocks.group);
        blocks.dispose();
      }
    this.#arrange();
    this.emphasise(this.store.state.highlight);
  }

  #arrange(): void {
    const poses = arrange(this.shown.map(({ figure }) => figure.layout.bounds), this.flow);
    this.shown.forEach((shown, n) => {
      shown.pose = item(poses, n);
      shown.blocks.place(shown.pose);
    });
  }
}

/** The box around the input and the output: the logits only if the vocabulary is small. */
function endsOf(layout: Layout): Box | null {
  const logits = layout.widthOf("logits") < SMALL_VOCABULARY ? [layout.blockOf("logits")] : [];
  return layout.around([layout.blockOf("tokens"), layout.blockOf("embedding"), ...logits].filter((id) => id !== null));
}

/** The direction of the computation: the chosen one, or along the longer side of the window. */
export function flowOf({ view, viewport }: State): Flow {
  return view.flow ?? (viewport.width >= viewport.height ? "right" : "down");
}

function depthOf({ min, max }: Box, projection: Projection): Depth {
  const { width, height } = projection.viewport;
  const depth: Depth = { min: Infinity, max: -Infinity, inView: false };
  const outside = { left: 0, right: 0, above: 0, below: 0, behind: 0 };
  for (let corner = 0; corner < 8; corner++) {
    const seen = projection.project([corner & 1 ? max[0] : min[0], corner & 2 ? max[1] : min[1], corner & 4 ? max[2] : min[2]]);
    depth.min = Math.min(depth.min, seen.depth);
    depth.max = Math.max(depth.max, seen.depth);
    if (seen.depth <= 0) outside.behind++;
    else {
      if (seen.x < 0) outside.left++;
      if (seen.x > width) outside.right++;
      if (seen.y < 0) outside.above++;
      if (seen.y > height) outside.below++;
    }
  }
  depth.min = Math.max(depth.min, projection.nearest({ min, max })); // a block beside the camera may have a small depth and still be far
  const inFront = outside.behind === 0; // a box that reaches behind the camera counts as in view
  depth.inView = outside.behind < 8 && !(inFront && [outside.left, outside.right, outside.above, outside.below].includes(8));
  return depth;
}
