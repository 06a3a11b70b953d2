/** Links to the view and downloads: its picture, its shape in 3D, its values. */

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
    const said = el("p", { class: "said", role: "status" });
    const link = el("input", { readonly: true, "aria-label": t("share.here"), hidden: true });
    const png = button(t("share.png"), () => void attempt(picture(app), said), { disabled: true });
    const glb = button(t("share.glb"), () => void attempt(shape(app), said), { disabled: true });
    const values = el("a", { class: "button", download: "", hidden: true }, t("share.trace"));
    root.append(button(t("share.link"), () => void copy(app, said, link)), png, glb, values, said, link);
    store.subscribe(({ figures, graphics }) => !figures.length || graphics !== null, (none) => (png.disabled = none));
    store.subscribe(({ figures }) => figures[0], (figure) => {
      glb.disabled = !figure;
      values.hidden = !figure?.trace;
      if (figure?.trace) values.setAttribute("href", `/v1/traces/${figure.trace.id}/safetensors`);
    });
  },
};

async function copy({ store }: App, said: HTMLElement, link: HTMLInputElement): Promise<void> {
  const url = new URL(location.href);
  url.hash = toHash(store.state.view);
  link.value = url.href;
  const copied = await navigator.clipboard?.writeText(url.href).then(() => true, () => false); // only where the page is secure
  said.textContent = t(copied ? "share.copied" : "share.here");
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

/** Shows that a file is being prepared, and any error. */
async function attempt(work: Promise<void>, said: HTMLElement): Promise<void> {
  said.textContent = t("share.making");
  said.textContent = await work.then(() => "", reason);
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Of the model, in letters that every file system takes. */
function fileName({ store }: App): string {
  return `cutaway-${refText(store.state.view.model)}`.replace(/[^\w.-]+/g, "-");
}
