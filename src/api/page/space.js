// What takes the space in a folder, what has grown, who wrote it, and what is there twice.
//
// Owns nothing but how that looks: each part is one report of the API, asked for when the folder is opened
// or another span is chosen. Duplicates take a second walk, so they are looked for when somebody wants them.

import { get } from "./api.js";
import { named } from "./crumbs.js";
import { el, icon, problem, say, table } from "./dom.js";
import { count, delta, kind, plural, size, when } from "./format.js";
import { fromRecord, join, parent, show as text } from "./path.js";
import { href } from "./route.js";

const SPANS = [
  ["", "as it is"],
  ["1d", "since yesterday"],
  ["7d", "in a week"],
  ["30d", "in a month"],
  ["365d", "in a year"],
];
const ENTRIES = 200;
const WRITERS = 20;
const CONTENTS = 100;
const PATHS = 10;

function entries(usage, path) {
  const grows = usage.then !== null;
  const change = (entry) => entry.bytes - entry.then.bytes;
  const most = Math.max(1, ...usage.entries.map((entry) => (grows ? Math.abs(change(entry)) : entry.bytes)));
  const columns = [["Name", "name"], ["Size", "number"], [grows ? "Change" : "Share", "number"], ["Files", "number wide"], ["History", "number wide"]];
  const rows = usage.entries.map((entry) => {
    const place = join(path, fromRecord(entry, "name"));
    const inside = [icon(entry.kind), el("bdi", {}, text(fromRecord(entry, "name")))];
    const target = entry.kind === "dir" ? { path: place, view: "space" } : { path: place, view: "file" };
    const share = grows ? Math.abs(change(entry)) : entry.bytes;
    return [
      el("a", { href: href(target) }, inside, el("span", { class: "hidden" }, `, ${kind(entry.kind)}`)),
      size(entry.bytes),
      [grows && delta(change(entry)), el("meter", { max: most, value: share, "aria-hidden": "true" })],
      count(entry.files),
      entry.kept_bytes > 0 ? size(entry.kept_bytes) : "",
    ];
  });
  const more = usage.left_out > 0 && el("p", {}, `${count(usage.left_out)} that matter less are not shown.`);
  return [table("What is in this folder", columns, rows), more];
}

function writers(items) {
  if (items.length === 0) return el("p", {}, "Nobody wrote anything.");
  const columns = [["Program", "name"], ["Wrote", "number"], ["Versions", "number wide"], ["Files", "number wide"], ["Last", "wide"]];
  const rows = items.map((item) => [
    item.uid === null ? "found, not seen being written" : `${item.comm || "a program"}, ${item.user ?? `user ${item.uid}`}`,
    size(item.bytes),
    count(item.versions),
    count(item.files),
    when(item.last),
  ]);
  return table("Who wrote the most", columns, rows);
}

function duplicates(items) {
  if (items.length === 0) return el("p", {}, "Nothing is there twice.");
  const freed = items.reduce((sum, item) => sum + item.reclaimable, 0);
  const columns = [["Files", "name"], ["Size", "number"], ["Could be freed", "number"]];
  const rows = items.map((item) => {
    const links = item.paths.slice(0, PATHS).map((record) => {
      const path = fromRecord(record);
      return el("div", {}, el("a", { href: href({ path, view: "file" }) }, named(path)));
    });
    const left = item.paths.length - links.length;
    return [[links, left > 0 && el("small", {}, `and ${plural(left, "more name")}`)], size(item.size), size(item.reclaimable)];
  });
  return [el("p", {}, `${plural(items.length, "content")} that several files have; ${size(freed)} could be freed at most.`), table("Files with the same content", columns, rows)];
}

/** Shows what takes the space. */
export async function space(main, route, signal) {
  const { path } = route;
  let span = "";
  const figures = el("p", { id: "space-sum" });
  const inside = el("div", { id: "space-entries" });
  const who = el("div", { id: "space-writers" });
  const twice = el("div", { id: "space-twice" });
  const choose = el(
    "select",
    { id: "space-span", "aria-label": "Compared with when", change: () => paint(choose.value) },
    SPANS.map(([value, name]) => el("option", { value }, name)),
  );
  const look = el("button", { type: "button", id: "space-look", click: seek }, "Look for duplicates");
  main.replaceChildren(
    el("h1", { tabindex: -1 }, path === "" ? "Space" : ["Space in ", el("bdi", {}, text(path))]),
    el(
      "div",
      { class: "buttons left" },
      choose,
      path !== "" && el("a", { class: "button", href: href({ path: parent(path), view: "space" }) }, "Folder above"),
      el("a", { class: "button", href: href({ path }) }, "Show the files"),
    ),
    figures,
    inside,
    el("h2", {}, "Who wrote the most"),
    who,
    el("h2", {}, "What is there twice"),
    el("div", { class: "buttons left" }, look),
    twice,
  );

  async function seek() {
    look.disabled = true;
    twice.replaceChildren(el("p", {}, "Looking…"));
    try {
      const { items } = await get("duplicates", { path, limit: CONTENTS }, signal);
      twice.replaceChildren(...[duplicates(items)].flat());
      say(twice.querySelector("p").textContent);
    } catch (error) {
      if (!signal.aborted) twice.replaceChildren(problem(error));
    }
    look.disabled = false;
  }

  async function paint(wanted) {
    span = wanted;
    main.setAttribute("aria-busy", "true");
    try {
      const [usage, wrote] = await Promise.all([
        get("usage", { path, since: span, limit: ENTRIES }, signal),
        get("writers", { path, since: span, limit: WRITERS }, signal),
      ]);
      if (wanted !== span) return;
      const history = usage.kept_versions > 0 && `; ${plural(usage.kept_versions, "older version")} of ${size(usage.kept_bytes)} kept`;
      const grown = usage.then && [" (", delta(usage.bytes - usage.then.bytes), ")"];
      figures.replaceChildren(
        ...[`${size(usage.bytes)} in ${plural(usage.files, "file")} and ${plural(usage.directories, "folder")}`, grown, history || ""].flat().filter(Boolean),
      );
      inside.replaceChildren(...entries(usage, path).filter(Boolean));
      who.replaceChildren(writers(wrote.items));
      say(figures.textContent);
    } catch (error) {
      if (!signal.aborted) figures.replaceChildren(problem(error));
    } finally {
      if (!signal.aborted) main.removeAttribute("aria-busy");
    }
  }

  await paint("");
  return undefined;
}
