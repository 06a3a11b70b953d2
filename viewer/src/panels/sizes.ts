/** The layout of a model of any size; and further models beside it, to scale. */

import { t } from "../i18n/text";
import { refText } from "../state/address";
import { button, el, field, select } from "./dom";
import type { App, Panel } from "./panel";

type Config = Record<string, unknown>;

export const sizes: Panel = {
  id: "sizes",
  place: "side",
  title: "sizes",
  open: false,
  mount(root, app) {
    const { store } = app;
    const grid = el("div", { class: "grid" });
    const tokens = el("input", { type: "number", min: 1, name: "tokens" });
    const form = el("form", { onsubmit: (event) => submit(event) });
    form.append(grid, el("button", { type: "submit" }, t("sizes.show")));
    root.append(form, ...beside(app));

    let shown: Config = {};
    let inputs: HTMLInputElement[] = []; // one for each whole number in the configuration, whatever its family calls it
    const submit = (event: Event): void => {
      event.preventDefault();
      const wanted: Config = { ...shown, ...Object.fromEntries(inputs.map(({ name, value }) => [name, Number(value)])) };
      const known = store.state.models.find(({ config }) => same(config, wanted));
      store.dispatch({ type: "show", change: { model: known?.id ?? wanted, tokens: Number(tokens.value) || null, traced: false } });
    };
    store.subscribe(({ figures }) => figures[0]?.layout, (layout) => {
      if (!layout) return;
      shown = layout.facts.config;
      inputs = sizesIn(shown).map(([name, value]) => el("input", { type: "number", min: 1, required: true, name, value }));
      grid.replaceChildren(...inputs.map((input) => field(input.name, input)), field(t("sizes.tokens"), tokens));
      tokens.value = String(layout.facts.tokens);
    });
  },
};

function sizesIn(config: Config): [string, number][] {
  return Object.entries(config).filter((entry): entry is [string, number] => Number.isInteger(entry[1]));
}

function same(config: Config, other: Config): boolean {
  return Object.keys({ ...config, ...other }).every((name) => config[name] === other[name]);
}

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
