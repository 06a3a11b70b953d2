/** The form of the prompt: letters, text or token ids, and the number of new tokens. */

import { progressText, t } from "../i18n/text";
import type { Prompt } from "../state/view";
import { button, el, field } from "./dom";
import type { Panel } from "./panel";

export const input: Panel = {
  id: "input",
  place: "side",
  title: "input",
  mount(root, { store, service }) {
    const text = el("textarea", { rows: 2, spellcheck: "false", autocomplete: "off", id: "prompt" });
    const ids = el("input", { type: "checkbox", onchange: () => hint() });
    const count = el("input", { type: "number", min: 0, max: 4096 });
    const run = el("button", { type: "submit", class: "primary" });
    const stop = button(t("stop"), () => void cancel(), { hidden: true });
    const bar = el("progress", { max: 1, hidden: true, "aria-label": t("progress") });
    const line = el("p", { class: "message", role: "status" });
    const note = el("small");
    const form = el("form", { onsubmit: (event) => submit(event) });
    form.append(field(t("prompt"), text), note, el("div", { class: "row" }, field(t("ids"), ids), field(t("new"), count)), el("div", { class: "row" }, run, stop), bar, line);
    root.append(form);

    const hint = (): void => {
      const letters = store.state.figures[0]?.model?.vocabulary.tokens;
      note.textContent = ids.checked ? t("hint.ids") : letters ? t("hint.letters", { letters: letters.join(", ") }) : "";
    };
    const submit = (event: Event): void => {
      event.preventDefault();
      const generate = { ...store.state.view.generate, max_new_tokens: Number(count.value) || 0 };
      store.dispatch({ type: "show", change: { prompt: promptOf(text.value, ids.checked), generate, traced: true } });
    };
    const cancel = async (): Promise<void> => {
      const { trace } = store.state.run;
      if (trace) await service.cancelTrace(trace.id);
    };
    store.subscribe(({ view }) => view.prompt, (prompt) => {
      ids.checked = "tokens" in prompt;
      text.value = "text" in prompt ? prompt.text : prompt.tokens.join(", ");
    });
    store.subscribe(({ view }) => view.generate.max_new_tokens, (n) => (count.value = String(n)));
    store.subscribe(({ figures }) => figures[0], hint);
    store.subscribe((state) => state.run, ({ status, progress, position, message }) => {
      const busy = status === "submitting" || status === "queued" || status === "running";
      run.textContent = t(busy ? "running" : "run");
      stop.hidden = status !== "queued" && status !== "running";
      bar.hidden = stop.hidden;
      if (progress) Object.assign(bar, { value: progress.done, max: progress.total });
      else bar.removeAttribute("value");
      line.classList.toggle("error", status === "failed");
      line.textContent = message ?? (status === "queued" && position ? t("queued", { n: position }) : progress ? progressText(progress) : "");
    });
  },
};

function promptOf(text: string, ids: boolean): Prompt {
  return ids ? { tokens: text.split(/[\s,]+/).filter(Boolean).map(Number) } : { text };
}
