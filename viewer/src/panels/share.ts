/** The share panel: a link to the view, and downloads. */

import { present } from "../checked/item";
import { reason } from "../i18n/reason";
import { t } from "../i18n/text";
import { snapshot } from "../scene/snapshot";
import { refText, toHash } from "../state/address";
import type { App, Panel } from "./panel";
import { button, el } from "./dom";

export const share: Panel = {
  id: "share",
  place: "side",
  title: "share",
  open: false,
  mount(root, app) {
    const { store } = app;
    const status = el("p", { class: "message", role: "status" });
    const link = el("input", { readonly: true, "aria-label": t("share.here"), hidden: true });
    const png = button(t("share.png"), () => void attempt(picture(app), status), { disabled: true });
    const glb = button(t("share.glb"), () => void attempt(shape(app), status), { disabled: true });
    const values = el("a", { class: "button", download: "", hidden: true }, t("share.trace"));
    root.append(button(t("share.link"), () => void copy(app, status, link)), png, glb, values, status, link);
    store.subscribe(({ figures, graphics }) => !figures.length || graphics !== null, (none) => (png.disabled = none));
    store.subscribe(({ figures }) => figures[0], (figure) => {
      glb.disabled = !figure;
      values.hidden = !figure?.trace;
      if (figure?.trace) values.setAttribute("href", `/v1/traces/${figure.trace.id}/safetensors`);
    });
  },
};

async function copy({ store }: App, status: HTMLElement, link: HTMLInputElement): Promise<void> {
  const url = new URL(location.href);
  url.hash = toHash(store.state.view);
  link.value = url.href;
  const copied = await navigator.clipboard?.writeText(url.href).then(() => true, () => false); // secure contexts only
  status.textContent = t(copied ? "share.copied" : "share.here");
  link.hidden = copied === true;
  if (!copied) link.select();
}

async function picture(app: App): Promise<void> {
  const overlay = document.getElementById("overlay") as HTMLCanvasElement;
  save(await snapshot(app.stage, overlay), `${fileName(app)}.png`);
}

async function shape(app: App): Promise<void> {
  const { id } = present(app.store.state.figures[0], "the model").layout.facts;
  save(new Blob([await app.service.layoutShape(`/v1/layouts/${id}`)], { type: "model/gltf-binary" }), `${fileName(app)}.glb`);
}

/** Shows the status of preparing a file, and any error. */
async function attempt(work: Promise<void>, status: HTMLElement): Promise<void> {
  status.textContent = t("share.making");
  status.textContent = await work.then(() => "", reason);
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A file name from the model's id, in characters that every file system accepts. */
function fileName({ store }: App): string {
  return `cutaway-${refText(store.state.view.model)}`.replace(/[^\w.-]+/g, "-");
}
