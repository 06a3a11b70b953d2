/** The prompt and generated tokens, and steps through the generation. */

import { t } from "../i18n/text";
import type { Trace } from "../api/service";
import { button, el } from "./dom";
import type { Panel } from "./panel";

export const output: Panel = {
  id: "output",
  place: "side",
  title: "output",
  mount(root, { store }) {
    const line = el("p", { class: "tokens", "aria-live": "polite" });
    const slider = el("input", { type: "range", min: 0, "aria-label": t("step"), oninput: () => go(Number(slider.value)) });
    const count = el("span", { class: "step-count" });
    const back = button("‹", () => move(-1), { "aria-label": t("step.back") });
    const on = button("›", () => move(1), { "aria-label": t("step.on") });
    const steps = el("div", { class: "row steps" }, back, slider, on, count);
    const hint = el("p", { class: "message" });
    root.append(line, steps, hint);

    const last = (): number => store.state.figures[0]?.trace?.generated?.length ?? 0;
    const go = (step: number): void => store.dispatch({ type: "view", change: { step: step >= last() ? null : Math.max(step, 0) } });
    const move = (by: number): void => go((store.state.view.step ?? last()) + by);
    const show = (): void => {
      const trace = store.state.figures[0]?.trace ?? null;
      hint.textContent = trace || store.state.view.traced ? "" : t("values.run");
      for (const part of [line, steps]) part.hidden = !trace;
      if (!trace) return;
      const step = store.state.view.step ?? last();
      line.replaceChildren(...pieces(trace, step));
      steps.hidden = last() === 0;
      Object.assign(slider, { max: String(last()), value: String(step) });
      count.textContent = t("step.of", { step, last: last() });
      back.disabled = step <= 0;
      on.disabled = step >= last();
    };
    store.subscribe(({ figures }) => figures[0]?.trace, show);
    store.subscribe(({ view }) => view.step, show);
  },
};

function pieces(trace: Trace, step: number): HTMLElement[] {
  const given = trace.pieces.map(({ text, special }) => el("span", { class: special ? "token special" : "token" }, text));
  const made = (trace.generated ?? []).slice(0, step).map(({ text, probability }) => {
    const title = `${(100 * probability).toFixed(1)} %`;
    return el("span", { class: "token generated", title }, text);
  });
  return [...given, ...made];
}
