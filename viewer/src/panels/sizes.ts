/** The form of a model's sizes, and further models side by side. */

import type { Config, Family } from "../api/service";
import { t, textOr } from "../i18n/text";
import type { Layout } from "../layout/layout";
import { derive, fieldsOf, type SizeField } from "../reading/sizes";
import { refText } from "../state/address";
import { button, el, field, select } from "./dom";
import type { App, Panel } from "./panel";

export const sizes: Panel = {
  id: "sizes",
  place: "side",
  title: "sizes",
  open: false,
  mount(root, app) {
    const { store, service } = app;
    const grid = el("div", { class: "grid" });
    const tokens = el("input", { type: "number", min: 1, name: "tokens" });
    const form = el("form", { onsubmit: (event) => submit(event) });
    form.append(grid, el("button", { type: "submit" }, t("sizes.show")));
    root.append(form, ...beside(app));

    let families: Family[] = [];
    let shown: Config = {};
    let controls: SizeControls | null = null;
    const submit = (event: Event): void => {
      event.preventDefault();
      const wanted = { ...shown, ...controls?.values() };
      for (const name of controls?.omitted() ?? []) delete wanted[name];
      const known = store.state.models.find(({ config }) => same(config, wanted));
      store.dispatch({ type: "show", change: { model: known?.id ?? wanted, tokens: Number(tokens.value) || null, traced: false } });
    };
    const show = (layout: Layout | undefined): void => {
      if (!layout) return;
      shown = layout.facts.config;
      controls = new SizeControls(shown, fieldsOf(shown, families));
      grid.replaceChildren(...controls.elements, field(t("sizes.tokens"), tokens));
      tokens.value = String(layout.facts.tokens);
    };
    const loadFamilies = async (): Promise<void> => {
      ({ families } = await service.families());
      show(store.state.figures[0]?.layout);
    };
    store.subscribe(({ figures }) => figures[0]?.layout, show);
    void loadFamilies().catch(console.warn); // the form then has names instead of titles
  },
};

/** Inputs for sizes. Derived sizes follow the others until the user sets them. */
class SizeControls {
  readonly elements: HTMLElement[];
  #inputs: Map<string, HTMLInputElement>;
  #following: SizeField[];

  constructor(config: Config, fields: readonly SizeField[]) {
    this.#following = fields.filter(({ name, formula }) => formula !== null && derive(formula, config) === config[name]);
    this.#inputs = new Map(fields.map((one) => [one.name, this.#input(one, config[one.name])]));
    this.elements = fields.map(({ name, title }) => field(textOr(`field.${title}`, title), this.#inputs.get(name) ?? el("input")));
  }

  /** The sizes that are not empty. */
  values(): Record<string, number> {
    const filled = [...this.#inputs].filter(([, { value }]) => value !== "");
    return Object.fromEntries(filled.map(([name, { value }]) => [name, Number(value)]));
  }

  /** The derived sizes that are empty: the API computes or refuses them. */
  omitted(): string[] {
    return [...this.#inputs].filter(([, { value }]) => value === "").map(([name]) => name);
  }

  #input(size: SizeField, value: unknown): HTMLInputElement {
    const { name, formula } = size;
    const derived = formula === null ? {} : { placeholder: t("sizes.follows") };
    const oninput = (event: Event): void => this.#changed(size, event.target as HTMLInputElement);
    return el("input", { type: "number", min: 1, required: formula === null, name, title: name, value: String(value), oninput, ...derived });
  }

  #changed(size: SizeField, { value }: HTMLInputElement): void {
    this.#following = this.#following.filter((one) => one.name !== size.name);
    for (const { name, formula } of this.#following) {
      const input = this.#inputs.get(name);
      if (input) input.value = String(derive(formula ?? "", this.values()) ?? "");
    }
    if (size.formula !== null && value === "") this.#following.push(size); // emptied: it follows again
  }
}

function same(config: Config, other: Config): boolean {
  return Object.keys({ ...config, ...other }).every((name) => config[name] === other[name]);
}

function beside({ store }: App): HTMLElement[] {
  const chips = el("div", { class: "chips" });
  const adder = el("div");
  const setBeside = (models: typeof store.state.view.beside): void => store.dispatch({ type: "show", change: { beside: models } });
  const show = (): void => {
    const { models, view } = store.state;
    const options = [["", t("beside.add")] as const, ...models.map(({ id, name }) => [id, name] as const)];
    adder.replaceChildren(field(t("beside"), select(options, "", (id) => setBeside([...view.beside, id]))));
    chips.replaceChildren(
      ...view.beside.map((ref, n) => {
        const model = refText(ref);
        const remove = (): void => setBeside(view.beside.filter((_, other) => other !== n));
        return button(`${model} ×`, remove, { class: "chip", "aria-label": t("beside.remove", { model }) });
      }),
    );
  };
  store.subscribe((state) => state.models, show);
  store.subscribe(({ view }) => view.beside, show);
  return [adder, chips];
}
