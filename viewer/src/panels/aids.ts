/** The rail, and the reading aid that is open: beside the picture, or below it on a phone. */

import { present } from "../checked/item";
import { t } from "../i18n/text";
import type { State } from "../state/state";
import { button, byId, el, icon } from "./dom";
import type { App, Panel } from "./panel";

const NARROW = matchMedia("(max-width: 720px)"); // as in styles/frame.css
const WIDE = matchMedia("(min-width: 1400px)"); // an aid fits beside the picture
const FIRST = "attention";
export const INPUT = "input"; // not an aid: on a phone, the rail also opens the side panel
const ICONS = { input: "M4 6h16M4 12h10M4 18h7M17 15l3 3-3 3", close: "M6 6l12 12M18 6L6 18" };

/** The id of the open aid; "" for none. */
function openAid({ view }: State): string {
  const first = WIDE.matches ? FIRST : "";
  return view.aid === INPUT && !NARROW.matches ? first : (view.aid ?? first);
}

/** Fills the rail, and shows the chosen aid. */
export function mountAids(aids: Panel[], app: App): void {
  const { store } = app;
  const [rail, place, main] = [byId("rail"), byId("aids"), present(document.querySelector("main"), "main")];
  const choose = (id: string): void => store.dispatch({ type: "view", change: { aid: openAid(store.state) === id ? "" : id } });
  const buttons = new Map<string, HTMLButtonElement>();
  const entry = (id: string, title: string, path: string, controls: string): HTMLButtonElement => {
    const made = button("", () => choose(id), { "aria-controls": controls, class: `rail-${id}` });
    made.append(icon(path), el("span", {}, title));
    buttons.set(id, made);
    return made;
  };
  rail.setAttribute("aria-label", t("aids"));
  rail.replaceChildren(
    entry(INPUT, t("input"), ICONS.input, "side"),
    ...aids.map(({ id, title, icon: path }) => entry(id, t(title), path ?? "", "aids")),
  );

  let mounted: { end(): void } | null = null;
  const show = (open: string): void => {
    mounted?.end();
    mounted = null;
    main.dataset["aid"] = open;
    for (const [id, made] of buttons) made.setAttribute("aria-expanded", String(id === open));
    const panel = aids.find(({ id }) => id === open);
    place.hidden = !panel;
    if (!panel) return place.replaceChildren();
    const body = el("div", { class: `panel-body ${panel.id}` });
    const close = button("", () => leave(panel.id), { class: "quiet", "aria-label": t("close") });
    close.append(icon(ICONS.close));
    place.setAttribute("aria-label", t(panel.title));
    place.replaceChildren(el("header", { class: "aid-head" }, el("h2", {}, t(panel.title)), close), body);
    const scope = store.scope();
    mounted = scope;
    panel.mount(body, { ...app, store: scope });
  };
  const leave = (id: string): void => {
    choose(id);
    buttons.get(id)?.focus();
  };
  store.subscribe(openAid, show);
  const resized = (): void => show(openAid(store.state));
  for (const query of [NARROW, WIDE]) query.addEventListener("change", resized);
  store.onEnd(() => {
    for (const query of [NARROW, WIDE]) query.removeEventListener("change", resized);
    mounted?.end();
  });
}
