/** Element factories. */

import { present } from "../checked/item";

type Attributes = Record<string, string | number | boolean | ((event: Event) => void) | null | undefined>;
type Child = Node | string | null | undefined | false;

/** Creates an element: `el("button", { class: "primary", onclick: run }, "Run")`. Null and false attributes are omitted. */
export function el<T extends keyof HTMLElementTagNameMap>(tag: T, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[T] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.replace(/^on/, ""), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An element of index.html. */
export function byId(id: string): HTMLElement {
  return present(document.getElementById(id), `the element #${id}`);
}

const SVG = "http://www.w3.org/2000/svg";

/** A line icon on a 24 × 24 grid, hidden from screen readers. */
export function icon(path: string): SVGElement {
  const made = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) made.setAttribute(name, value);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  made.append(line);
  return made;
}

/** A modal dialog; key events inside it do not reach the page. */
export function dialog(label: string, ...children: Child[]): HTMLDialogElement {
  const made = el("dialog", { "aria-label": label, class: "dialog" }, ...children);
  made.addEventListener("keydown", (event) => event.stopPropagation());
  made.addEventListener("click", (event) => event.target === made && made.close());
  return made;
}

/** A labelled control. */
export function field(label: string, control: HTMLElement, note?: string): HTMLLabelElement {
  return el("label", { class: "field" }, el("span", {}, label), control, note ? el("small", {}, note) : null);
}

export function select(options: readonly (readonly [string, string])[], value: string, change: (value: string) => void): HTMLSelectElement {
  const made = el("select", { onchange: () => change(made.value) });
  made.append(...options.map(([id, text]) => el("option", { value: id, selected: id === value }, text)));
  return made;
}

export function button(text: string, click: () => void, attributes: Attributes = {}): HTMLButtonElement {
  return el("button", { type: "button", onclick: click, ...attributes }, text);
}

/** A row of radio buttons. */
export function choice(legend: string, options: readonly (readonly [string, string])[], value: string, change: (value: string) => void): HTMLFieldSetElement {
  const name = `choice-${++choices}`;
  const radios = options.map(([id, text]) =>
    el("label", {}, el("input", { type: "radio", name, value: id, checked: id === value, onchange: () => change(id) }), el("span", {}, text)),
  );
  return el("fieldset", { class: "choice" }, el("legend", {}, legend), el("div", {}, ...radios));
}

let choices = 0;
