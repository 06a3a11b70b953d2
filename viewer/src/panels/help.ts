/** The help dialog, opened by `?`; and the keys that fly from layer to layer. */

import { item } from "../checked/item";
import { t } from "../i18n/text";
import type { Key } from "../i18n/text";
import { blocksOf, nearestSpan } from "../reading/layers";
import { flyTo } from "../scene/fly";
import type { Camera } from "../state/view";
import { button, dialog, el } from "./dom";
import { onKey } from "./keys";
import type { App, Panel } from "./panel";

const KEYS: [Key, string[]][] = [
  ["keys.pan", ["←", "→", "↑", "↓"]],
  ["keys.cell", ["←", "→", "↑", "↓"]],
  ["keys.orbit", ["Shift", "←", "→", "↑", "↓"]],
  ["keys.zoom", ["+", "−"]],
  ["keys.home", ["Home"]],
  ["keys.layer", ["PageUp", "PageDown"]],
  ["keys.search", ["/"]],
  ["keys.clear", ["Esc"]],
  ["keys.help", ["?"]],
];
const MOUSE: Key[] = ["mouse.pan", "mouse.orbit", "mouse.zoom", "mouse.cell", "mouse.pin"];

export const help: Panel = {
  id: "help",
  place: "bar",
  title: "help",
  mount(root, app) {
    const close = button(t("close"), () => pane.close(), { class: "primary" });
    const keys = KEYS.flatMap(([key, strokes]) => [el("dt", {}, ...strokes.map((stroke) => el("kbd", {}, stroke))), el("dd", {}, t(key))]);
    const mouse = el("ul", {}, ...MOUSE.map((key) => el("li", {}, t(key))));
    const pane = dialog(t("help"), el("h2", {}, t("help")), el("dl", { class: "keys" }, ...keys), mouse, close);
    const show = (): void => void (pane.open || pane.showModal());
    root.append(button("?", show, { class: "quiet", "aria-label": t("help"), "aria-keyshortcuts": "?" }), pane);
    onKey(app.store, "?", show);
    const last: LastStep = { to: null, camera: null };
    onKey(app.store, "PageDown", () => step(app, last, 1));
    onKey(app.store, "PageUp", () => step(app, last, -1));
  },
};

/** The layer of the last step, and its camera. */
interface LastStep {
  to: number | null;
  camera: Camera | null;
}

/** Flies to the next or previous layer. */
function step(app: App, last: LastStep, by: number): void {
  const [main] = app.stage.models.shown;
  if (!main) return;
  const { layout } = main.figure;
  const { camera } = app.store.state.view; // the target of the current flight, if any
  const outside = by > 0 ? -1 : layout.spans.length;
  const known = camera === last.camera ? last.to : null;
  const now = camera ? (known ?? nearestSpan(layout, main.pose, camera.target)) : outside;
  last.to = Math.max(0, Math.min(now + by, layout.spans.length - 1));
  flyTo(app, blocksOf(layout, item(layout.spans, last.to)));
  last.camera = app.store.state.view.camera;
}
