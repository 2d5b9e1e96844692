// Where something is, in words.

import { el } from "./dom.js";
import { last, parent, show } from "./path.js";
import { href } from "./route.js";

/** Makes the breadcrumbs of a path, each a link to that directory at the same time. */
export function crumbs(path, at) {
  const names = path === "" ? [] : path.split("/");
  const steps = names.map((name, index) => [names.slice(0, index + 1).join("/"), name]);
  const all = [["", null], ...steps];
  return el(
    "nav",
    { class: "crumbs", "aria-label": "Folders" },
    el(
      "ol",
      {},
      all.map(([target, name], index) =>
        el(
          "li",
          {},
          index === all.length - 1
            ? el("h1", { tabindex: -1, "aria-current": "page" }, el("bdi", {}, name === null ? "All files" : show(name)))
            : el("a", { href: href({ path: target, at }) }, el("bdi", {}, name === null ? "All files" : show(name))),
        ),
      ),
    ),
  );
}

/** Says what something is called and, fainter, in which folder: the name must not be cut off. */
export function named(path) {
  const folder = parent(path);
  return [el("bdi", {}, show(last(path)) || "All files"), folder && el("small", {}, " ", el("bdi", {}, show(folder)))];
}
