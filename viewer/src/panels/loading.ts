/** The progress of loading a model. */

import { number, progressText, t } from "../i18n/text";
import { refText } from "../state/address";
import type { State } from "../state/state";
import { NANO } from "../state/view";
import { button, el } from "./dom";
import type { Panel } from "./panel";

export const loading: Panel = {
  id: "loading",
  place: "over",
  title: "loading",
  mount(root, { store }) {
    const what = el("strong");
    const bar = el("progress", { "aria-label": t("loading") });
    const line = el("p", { role: "status" });
    const other = button(t("loading.other"), () => store.dispatch({ type: "show", change: { ...NANO, beside: [] } }), { hidden: true });
    const card = el("div", { class: "loading-card" }, what, bar, line, other);
    root.append(card);
    const show = (): void => {
      const { state } = store;
      const { progress, status } = state.run;
      card.hidden = !missing(state);
      if (card.hidden) return;
      what.textContent = t("loading.model", { model: refText(state.view.model) });
      bar.hidden = status === "failed";
      other.hidden = !bar.hidden;
      if (progress) Object.assign(bar, { value: progress.done, max: progress.total });
      else bar.removeAttribute("value");
      line.textContent = statusText(state);
    };
    store.subscribe(({ figures }) => figures, show);
    store.subscribe(({ run }) => run, show);
    store.subscribe(({ view }) => view.model, show);
    store.subscribe(({ traffic }) => traffic.bytes, show);
  },
};

/** Whether the requested model is not shown yet. */
function missing({ figures, view }: State): boolean {
  const [figure] = figures;
  return !figure || refText(figure.ref) !== refText(view.model);
}

function statusText({ run, traffic }: State): string {
  if (run.status === "failed") return run.message ?? "";
  if (run.status === "queued" && run.position) return t("queued", { n: run.position });
  if (run.progress) return progressText(run.progress);
  return t("loading.bytes", { mb: number(traffic.bytes / 1e6, 1) });
}
