/** The model picker. */

import { t, number } from "../i18n/text";
import { partsOf, totalOf } from "../reading/parameters";
import { refText } from "../state/address";
import { NANO, type View } from "../state/view";
import type { Model } from "../api/service";
import { el, select } from "./dom";
import type { Panel } from "./panel";

const RUN_LIMIT = 2e9; // parameters: larger models are shown without running them

export const models: Panel = {
  id: "models",
  place: "bar",
  title: "models",
  mount(root, { store }) {
    const brand = el("a", { class: "brand", href: "/", title: t("home") }, el("span", { class: "mark", "aria-hidden": "true" }), "Cutaway");
    const picker = el("div", { class: "picker" });
    const size = el("span", { class: "size" });
    root.append(brand, picker, size);
    const show = (): void => {
      const { models: known, view, figures } = store.state;
      const chosen = refText(view.model);
      const options = known.map((model): [string, string] => [model.id, model.name]);
      if (!options.some(([id]) => id === chosen)) options.unshift([chosen, typeof view.model === "string" ? chosen : t("own")]);
      const list = select(options, chosen, (id) => {
        const model = known.find((one) => one.id === id);
        if (model) store.dispatch({ type: "show", change: opening(model) });
      });
      list.setAttribute("aria-label", t("model"));
      picker.replaceChildren(list);
      const [figure] = figures;
      size.textContent = figure ? t("parameters", { n: number(totalOf(partsOf(figure.layout, figure.model))) }) : "";
    };
    store.subscribe((state) => state.models, show);
    store.subscribe((state) => state.figures[0], show);
    store.subscribe(({ view }) => view.model, show);
  },
};

/** The initial view of a model: with values if they are computed quickly. */
export function opening(model: Model): Partial<View> {
  if (model.id === NANO.model) return { ...NANO, tokens: null };
  const { kind } = model.vocabulary;
  const prompt: View["prompt"] = kind === "ids" ? { tokens: [0, 1, 2, 3] } : { text: kind === "letters" ? "A" : t("prompt.first") };
  const generate = { ...NANO.generate, max_new_tokens: 1 };
  return { model: model.id, traced: model.parameters.total <= RUN_LIMIT, prompt, generate, tokens: null };
}
