// Names that match.
//
// Owns the answer to what stands in the search field, which is the header's, and the way back for
// what was deleted.

import { get } from "./api.js";
import { named } from "./crumbs.js";
import { el, icon, say } from "./dom.js";
import { date, kind, size, when } from "./format.js";
import { List } from "./list.js";
import { fromRecord, parent, show as text } from "./path.js";
import { go, href, note } from "./route.js";
import { steps } from "./steps.js";

// Names that are asked for at a time.
const PAGE = 200;

/** Shows what a search finds. */
export async function search(main, route, signal) {
  const { path, q, deleted } = route;
  const scope = el("input", { type: "checkbox", id: "everywhere", change: () => go({ ...route, path: "" }) });
  const gone = el("input", {
    type: "checkbox",
    id: "deleted",
    checked: deleted !== "",
    change: () => go({ ...route, deleted: gone.checked ? "1" : "" }),
  });
  const options = el(
    "div",
    { class: "options" },
    el("label", {}, gone, " Deleted, too"),
    path !== "" && el("label", {}, scope, " Everywhere, not only in ", el("bdi", {}, text(path))),
  );
  const title = el("h1", { tabindex: -1 }, q ? `Names with “${q}”` : "Search");
  if (!q) {
    main.replaceChildren(title, options, el("p", { class: "empty" }, "Type a part of a name above, or a pattern such as *.txt."));
    return undefined;
  }

  async function undelete(item) {
    const what = fromRecord(item);
    const done = await steps({
      title: `Undelete “${text(what)}”`,
      explain: item.kind === "dir" ? "The folder comes back with everything that was deleted with it." : "It comes back where it was.",
      name: "undelete",
      body: { path: what },
      verb: "Undelete",
    });
    if (!done || signal.aborted) return;
    go({ dir: { path: what }, file: { path: what, view: "file" } }[item.kind] ?? { path: parent(what) });
  }

  function row(item) {
    const target = fromRecord(item);
    const inside = [icon(item.kind), named(target)];
    const link = {
      // A folder that is gone is shown as it was just before.
      dir: { path: target, at: item.deleted ? new Date(Date.parse(item.deleted) - 1).toISOString() : "" },
      file: { path: target, view: "file" },
    }[item.kind];
    const words = el("span", { class: "hidden" }, `, ${kind(item.kind)}`);
    const gone = () => [
      el("span", { class: "tag bad", title: date(item.deleted) }, "deleted"),
      " ",
      el("button", { type: "button", click: () => undelete(item) }, "Undelete…"),
    ];
    return [
      link
        ? el("a", { href: href(link), "data-focus": true }, inside, words)
        : el("span", { "data-focus": true }, inside, words),
      item.deleted ? el("span", { class: "deleted" }, gone()) : "",
      item.kind === "file" ? size(item.size) : "",
      when(item.deleted ?? item.mtime),
    ];
  }

  const query = { q, path, glob: /[*?[]/.test(q) || undefined, deleted: deleted ? true : undefined };
  const found = new List({
    label: "Names that match",
    columns: [
      ["Name", "name"],
      ["State", deleted ? "act" : "act none"],
      ["Size", "number wide"],
      ["Changed or deleted", "wide"],
    ],
    more: (after) => get("search", { ...query, after, limit: PAGE }, signal),
    row,
    empty: deleted ? "No name matches, not even a deleted one." : "No name matches. “Deleted, too” also looks at what is gone.",
    signal,
  });
  await found.load();
  if (signal.aborted) return undefined;
  main.replaceChildren(title, options, found.element);
  found.render();
  return () => found.take();
}

/** Connects the header's field: what is typed is searched for once the hand rests. */
export function searchField(input, here) {
  let timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const { path, view, deleted } = here();
      const folder = view === "file" ? parent(path) : path;
      note({ path: folder, view: "search", q: input.value, deleted }, view !== "search");
      dispatchEvent(new HashChangeEvent("hashchange"));
    }, 150);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      document.querySelector("#main [data-focus]")?.focus();
    }
    if (event.key === "Escape") input.blur();
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, textarea, select") || document.querySelector("dialog[open]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
    input.select();
    say("Search");
  });
}
