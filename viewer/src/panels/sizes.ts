/** The layout of a model of any size; and further models beside it, to scale. */

import { item } from "../checked/item";
import { t, type Key } from "../i18n/text";
import { SIZE_FIELDS, fits, requestOf, type Sizes } from "../layout/gpt2";
import { refText } from "../state/address";
import { button, el, field, select } from "./dom";
import type { App, Panel } from "./panel";

const TEXTS: readonly Key[] = ["sizes.layers", "sizes.heads", "sizes.width"]; // of SIZE_FIELDS

export const sizes: Panel = {
  id: "sizes",
  place: "side",
  title: "sizes",
  open: false,
  mount(root, app) {
    const { store } = app;
    const inputs = SIZE_FIELDS.map((name, n) => ({ name, text: item(TEXTS, n), box: el("input", { type: "number", min: 1, required: true, name }) }));
    const tokens = el("input", { type: "number", min: 1, name: "tokens" });
    const form = el("form", { onsubmit: (event) => submit(event) });
    const fields = inputs.map(({ text, box }) => field(t(text), box));
    form.append(el("div", { class: "grid" }, ...fields, field(t("sizes.tokens"), tokens)), el("button", { type: "submit" }, t("sizes.show")));
    root.append(form, ...beside(app));

    const submit = (event: Event): void => {
      event.preventDefault();
      const wanted = Object.fromEntries(inputs.map(({ name, box }) => [name, Number(box.value)])) as Sizes;
      const length = Number(tokens.value) || null;
      const known = store.state.models.find(({ config }) => fits(config, wanted, length));
      store.dispatch({ type: "show", change: { model: known?.id ?? requestOf(wanted, length), tokens: length, traced: false } });
    };
    store.subscribe(({ figures }) => figures[0]?.layout, (layout) => {
      if (!layout) return;
      for (const { name, box } of inputs) box.value = String(layout.facts.config[name]);
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
