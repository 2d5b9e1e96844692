// What a version looks like.
//
// Owns the way from bytes to something to look at. Text is a text node; images and PDF go through a
// `blob:` address, as neither an image nor a frame can show a key. Nothing else is ever framed.

import { content, url } from "./api.js";
import { key } from "./key.js";
import { el, problem, say } from "./dom.js";
import { size } from "./format.js";
import { last, show } from "./path.js";

const TEXT = 256 * 1024;
const WHOLE = 32 * 1024 * 1024;

function total(response, length) {
  const range = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
  return range ? Number(range[1]) : length;
}

/** Whether bytes are text; the last ones may be half a character where more would follow. */
function asText(bytes, cut) {
  if (bytes.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: cut });
  } catch {
    return null;
  }
}

function address(blob, signal) {
  const made = URL.createObjectURL(blob);
  signal.addEventListener("abort", () => URL.revokeObjectURL(made));
  return made;
}

/** Makes a view of a version. */
export async function preview(path, { number: version, size: known }, signal) {
  // An empty file has no first byte to ask for.
  if (known === 0) return el("p", { class: "empty" }, "This version is empty.");
  const response = await content(path, version, signal, TEXT);
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0];
  const bytes = new Uint8Array(await response.arrayBuffer());
  const length = total(response, bytes.length);
  if (type.startsWith("image/") || type === "application/pdf") {
    if (length > WHOLE) return el("p", { class: "empty" }, `${size(length)} is too large to show here. Download it instead.`);
    const rest = length > bytes.length ? await (await content(path, version, signal)).arrayBuffer() : bytes;
    const source = address(new Blob([rest], { type }), signal);
    const name = show(last(path));
    if (type === "application/pdf") return el("iframe", { src: source, title: `${name}, version ${version}` });
    const image = el("img", { src: source, alt: `${name}, version ${version}` });
    const none = el("p", { class: "empty" }, "These bytes are no image that can be shown. Download them instead.");
    image.addEventListener("error", () => image.replaceWith(none));
    return image;
  }
  const text = asText(bytes, length > bytes.length);
  if (text === null) return el("p", { class: "empty" }, `${size(length)} that are no text. Download it to open it elsewhere.`);
  return el(
    "div",
    {},
    length > bytes.length && el("p", { class: "empty" }, `The first ${size(bytes.length)} of ${size(length)}:`),
    el("pre", { class: "preview", tabindex: 0, "aria-label": "Content" }, text),
  );
}

/** Makes the link that saves a version. */
export function download(path, version) {
  const name = last(path).includes("/") ? "file" : show(last(path));
  if (!key()) return el("a", { class: "button", href: url("content", { path, version }), download: name }, "Download");
  return el(
    "button",
    {
      type: "button",
      click: async (event) => {
        const button = event.currentTarget;
        try {
          const source = URL.createObjectURL(await (await content(path, version)).blob());
          el("a", { href: source, download: name }).click();
          setTimeout(() => URL.revokeObjectURL(source), 60000);
        } catch (error) {
          button.after(problem(error));
        }
        say("The download begins.");
      },
    },
    "Download",
  );
}
