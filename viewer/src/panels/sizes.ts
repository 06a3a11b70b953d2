/** A model of any size: type it, and it is laid out; and further models beside it, to scale. */

import { t } from "../i18n/text";
import { refText } from "../state/address";
import { button, el, field, select } from "./dom";
import type { App, Panel } from "./panel";

const SIZES = [
  ["n_layer", "sizes.layers"],
  ["n_head", "sizes.heads"],
  ["n_embd", "sizes.width"],
] as const;

export const sizes: Panel = {
  id: "sizes",
  place: "side",
  title: "sizes",
  open: false,
  mount(root, app) {
    const { store } = app;
    const inputs = SIZES.map(([name]) => el("input", { type: "number", min: 1, required: true, name }));
    const tokens = el("input", { type: "number", min: 1, name: "tokens" });
    const form = el("form", { onsubmit: (event) => submit(event) });
    const fields = SIZES.map(([, text], n) => field(t(text), inputs[n]));
    form.append(el("div", { class: "grid" }, ...fields, field(t("sizes.tokens"), tokens)), el("button", { type: "submit" }, t("sizes.show")));
    root.append(form, ...beside(app));

    const submit = (event: Event): void => {
      event.preventDefault();
      const wanted = Object.fromEntries(SIZES.map(([name], n) => [name, Number(inputs[n].value)]));
      const known = store.state.models.find(({ config }) => SIZES.every(([name]) => config[name] === wanted[name]));
      const length = Number(tokens.value) || null;
      const own = length && length > 1024 ? { ...wanted, n_positions: length } : wanted;
      const fits = known && (!length || length <= known.config.n_positions);
      store.dispatch({ type: "show", change: { model: fits ? known.id : own, tokens: length, traced: false } });
    };
    store.subscribe(({ figures }) => figures[0]?.layout, (layout) => {
      if (!layout) return;
      SIZES.forEach(([name], n) => (inputs[n].value = String(layout.config[name])));
      tokens.value = String(layout.facts.tokens);
    });
  },
};

function beside({ store }: App): HTMLElement[] {
  const chips = el("div", { class: "chips" });
  const adder = el("div");
  const put = (models: typeof store.state.view.beside): void => store.dispatch({ type: "show", change: { beside: models } });
  const show = (): void => {
    const { models, view } = store.state;
    const options = [["", t("beside.add")] as const, ...models.map(({ id, name }) => [id, name] as const)];
    adder.replaceChildren(field(t("beside"), select(options, "", (id) => put([...view.beside, id]))));
    chips.replaceChildren(
      ...view.beside.map((ref, n) => {
        const model = refText(ref);
        const remove = (): void => put(view.beside.filter((_, other) => other !== n));
        return button(`${model} ×`, remove, { class: "chip", "aria-label": t("beside.remove", { model }) });
      }),
    );
  };
  store.subscribe((state) => state.models, show);
  store.subscribe(({ view }) => view.beside, show);
  return [adder, chips];
}
