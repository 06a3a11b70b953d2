/** How values become colours, and where the computation goes. */

import { t } from "../i18n/text";
import type { Colour, View } from "../state/view";
import { el, field, select } from "./dom";
import type { Panel } from "./panel";

export const display: Panel = {
  id: "display",
  place: "side",
  title: "display",
  open: false,
  mount(root, { store }) {
    const colour = (change: Partial<Colour>): void => store.dispatch({ type: "view", change: { colour: { ...store.state.view.colour, ...change } } });
    const { view } = store.state;
    const scale = select([["linear", t("scale.linear")], ["log", t("scale.log")]], view.colour.scale, (value) => colour({ scale: value as Colour["scale"] }));
    const palette = select([["classic", t("palette.classic")], ["safe", t("palette.safe")]], view.colour.palette, (value) => colour({ palette: value as Colour["palette"] }));
    const gain = el("input", { type: "range", min: -2, max: 3, step: 0.25, value: Math.log2(view.colour.gain), oninput: () => colour({ gain: 2 ** Number(gain.value) }) });
    const flows = [["", t("flow.auto")], ["right", t("flow.right")], ["down", t("flow.down")]] as const;
    const flow = select(flows, view.flow ?? "", (value) => store.dispatch({ type: "show", change: { flow: (value || null) as View["flow"], camera: null } }));
    root.append(field(t("scale"), scale), field(t("palette"), palette), field(t("gain"), gain), field(t("flow"), flow));
  },
};
