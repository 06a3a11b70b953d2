/** The tour panel: the text of a step, and the player's controls. */

import { cellValue, number, t, currentLanguage } from "../i18n/text";
import type { Figure } from "../state/state";
import type { Command } from "../state/player";
import { stepOf, stepsOf, type TourStep } from "../state/steps";
import { facts, fill, stepText, sizeNote } from "../tour/words";
import { button, el, select } from "./dom";
import type { App, Panel } from "./panel";

const SPEEDS = [0.5, 1, 2, 4];

export const tour: Panel = {
  id: "tour",
  place: "foot",
  title: "tour",
  mount(root, app) {
    const { store } = app;
    const words = el("div", { class: "tour-words", "aria-live": "polite" });
    const now = el("output", { class: "tour-now", "aria-live": "off" });
    store.subscribe(({ view }) => view.tour === null, (none) => (root.hidden = none)); // first, so that the controls can be focused
    root.append(words, controls(app));
    const update = (): void => {
      const { view, figures } = store.state;
      if (!view.tour || !figures[0]) return;
      const step = stepOf(view.tour, figures);
      if (step) words.replaceChildren(...textsOf(step, figures[0]));
      words.lastElementChild?.append(now);
    };
    store.subscribe(({ view }) => view.tour, update);
    store.subscribe(({ figures }) => figures[0], update);
    store.subscribe(({ highlight }) => highlight?.cells[0], () => (now.textContent = nowText(app)));
  },
};

function textsOf(step: TourStep, figure: Figure): HTMLElement[] {
  const known = facts(figure);
  const notes = [sizeNote(step, figure), stepText(step, figure.trace ? "values" : "empty", known), figure.model?.weights.source === "synthetic" ? stepText(step, "synthetic", known) : null];
  const formula = fill(step.formula, known);
  return [
    el("div", {}, el("h2", {}, stepText(step, "title", known)), el("p", {}, stepText(step, "text", known))),
    el(
      "div",
      { class: "tour-aside" },
      formula ? el("p", { class: "tour-formula" }, ...withSubscripts(formula)) : null,
      ...notes.map((note) => note !== null && el("p", { class: "tour-values" }, note)),
    ),
  ];
}

/** A formula with subscripts for words after _. */
function withSubscripts(formula: string): (string | HTMLElement)[] {
  return formula.split(/_(\w+)/).map((part, n) => (n % 2 ? el("sub", {}, part) : part));
}

/** The text of the cell being computed. */
function nowText({ store, stage, detail }: App): string {
  const at = store.state.highlight?.cells[0];
  const [main] = stage.models.shown;
  const row = at && main ? main.figure.layout.row(at.block) : null;
  if (!at || !main || row === null || store.state.view.tour === null) return "";
  const value = detail.value(main, row, at.cell);
  const name = `${at.block.split(".").at(-1)}[${at.cell.slice(0, 2).join(", ")}]`;
  return value === undefined ? name : `${name} = ${cellValue(Number.isFinite(value) ? value : null)}`;
}

function controls({ store }: App): HTMLElement {
  const send = (command: Command) => (): void => store.dispatch({ type: "tour", command });
  const previous = button("‹", send({ do: "previous" }), { "aria-label": t("tour.previous"), "aria-keyshortcuts": "ArrowLeft" });
  const play = button("", send({ do: "toggle" }), { class: "primary tour-play", "aria-keyshortcuts": "Space" });
  const next = button("›", send({ do: "next" }), { "aria-label": t("tour.next"), "aria-keyshortcuts": "ArrowRight" });
  const count = el("span", { class: "tour-count" });
  const speeds = SPEEDS.map((speed) => [String(speed), `${number(speed, 1)}×`] as const);
  const speed = select(speeds, String(store.state.player.speed), (chosen) => send({ do: "speed", speed: Number(chosen) })());
  speed.setAttribute("aria-label", t("tour.speed"));
  const close = button("×", send({ do: "end" }), { class: "quiet", "aria-label": t("tour.end") });
  const update = (): void => {
    const { view, figures } = store.state;
    const steps = stepsOf(figures);
    count.textContent = `${steps.findIndex(({ id }) => id === view.tour) + 1} / ${steps.length}`;
  };
  store.subscribe(({ view }) => view.tour, update);
  store.subscribe(({ figures }) => stepsOf(figures), update);
  store.subscribe(({ player }) => player.playing, (playing) => {
    play.textContent = playing ? "❚❚" : "▶";
    play.setAttribute("aria-label", t(playing ? "tour.pause" : "tour.play"));
  });
  let shown = store.state.view.tour;
  store.subscribe(({ view }) => view.tour, (id) => {
    if (shown === null && id !== null) play.focus({ preventScroll: true }); // for its keyboard shortcuts
    shown = id;
  });
  return el("div", { class: "tour-controls" }, previous, play, next, timeline(store), count, speed, close);
}

/** A timeline: a part for each step, in proportion to its duration; a click goes there. Keyboard users have the buttons. */
function timeline(store: App["store"]): HTMLElement {
  const go = (id: string, part: HTMLElement, event: Event): void => {
    const { left, width } = part.getBoundingClientRect();
    const share = store.state.player.playing ? ((event as MouseEvent).clientX - left) / width : 1;
    store.dispatch({ type: "tour", command: { do: "go", step: id, share } });
  };
  const line = el("div", { class: "tour-line", role: "group", "aria-label": t("tour.steps") });
  let parts: { id: string; part: HTMLElement; done: HTMLElement }[] = [];
  const make = (steps: readonly TourStep[]): void => {
    parts = steps.map((step) => {
      const { id, seconds } = step;
      const done = el("span");
      const title = stepText(step, "title", { model: t("model") }, currentLanguage()) ?? id;
      const part: HTMLButtonElement = el("button", { type: "button", class: "tour-part", tabindex: -1, title, "aria-label": title, onclick: (event) => go(id, part, event) }, done);
      part.style.flexGrow = String(seconds);
      return { id, part, done };
    });
    line.replaceChildren(...parts.map(({ part }) => part));
    show();
  };
  const show = (): void => {
    const at = parts.findIndex(({ id }) => id === store.state.view.tour);
    parts.forEach(({ part, done }, n) => {
      done.style.width = `${n < at ? 100 : n > at ? 0 : 100 * store.state.player.share}%`;
      if (n === at) part.setAttribute("aria-current", "step");
      else part.removeAttribute("aria-current");
    });
  };
  store.subscribe(({ figures }) => stepsOf(figures), make);
  store.subscribe(({ view }) => view.tour, show);
  store.subscribe(({ player }) => player.share, show);
  return line;
}
