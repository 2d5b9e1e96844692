// A folder, now or at a time.
//
// Owns the listing and what can be done with a whole folder as it was.

import { get } from "./api.js";
import { crumbs } from "./crumbs.js";
import { el, icon, problem } from "./dom.js";
import { date, kind, size, when } from "./format.js";
import { List } from "./list.js";
import { fromRecord, join, show as text } from "./path.js";
import { href, note } from "./route.js";
import { steps } from "./steps.js";
import { timeBar } from "./time.js";

const PAGE = 500;

const COLUMNS = [
  ["Name", "name"],
  ["Size", "number"],
  ["Changed", "wide"],
  ["Owner", "wide"],
];

/** Shows a folder. */
export async function browse(main, route, signal, before) {
  const { path } = route;
  let { at } = route;
  let shown = new AbortController();
  let stepped = false;
  signal.addEventListener("abort", () => shown.abort());

  const place = el("div", { id: "listing" });
  const top = el("div");
  const actions = el("div", { class: "buttons left" });
  main.replaceChildren(top, el("div", { id: "time-place" }), actions, place);

  function row(item) {
    const name = fromRecord(item, "name");
    const target = join(path, name);
    const inside = [icon(item.kind), el("bdi", {}, text(name))];
    const links = { dir: { path: target, at }, file: { path: target, at, view: "file" } };
    const link = links[item.kind];
    return [
      link
        ? el("a", { href: href(link), "data-focus": true }, inside, el("span", { class: "hidden" }, `, ${kind(item.kind)}`))
        : el("span", { "data-focus": true }, inside, el("small", {}, ` ${kind(item.kind)}`)),
      item.kind === "file" ? size(item.size) : "",
      when(item.mtime),
      item.user ?? String(item.uid),
    ];
  }

  async function list() {
    shown.abort();
    shown = new AbortController();
    const mine = shown.signal;
    const moment = at;
    place.setAttribute("aria-busy", "true");
    const files = new List({
      label: moment === "" ? "Files now" : `Files on ${date(moment)}`,
      columns: COLUMNS,
      more: (after) => get("tree", { path, at: moment, after, limit: PAGE }, mine),
      row,
      empty: moment === "" ? "Nothing is in this folder." : "Nothing was in this folder then.",
      signal: mine,
    });
    await files.load();
    if (mine.aborted) return null;
    place.replaceChildren(files.element);
    place.classList.toggle("past", moment !== "");
    place.removeAttribute("aria-busy");
    files.from = undefined;
    files.render();
    return files;
  }

  function head() {
    top.replaceChildren(crumbs(path, at));
    const then = date(at || 0);
    const act = (name, title, explain, call, body) =>
      el(
        "button",
        {
          type: "button",
          click: async () => {
            const done = await steps({ title, explain, name: call, body, verb: name.replace("…", "") });
            if (done && !signal.aborted) await list();
          },
        },
        name,
      );
    const past = [
      act(
        "Rewind…",
        `Rewind “${text(path) || "all files"}”`,
        `The folder becomes what it was on ${then}. What came later goes into history and can be brought back.`,
        "rewind",
        { path, to: at },
      ),
      act(
        "Restore…",
        `Restore “${text(path) || "all files"}”`,
        `What was in the folder on ${then} comes back. What came later stays.`,
        "restore",
        { path, at },
      ),
    ];
    actions.replaceChildren(
      ...(at === "" ? [] : past),
      el("a", { class: "button", href: href({ path, view: "activity" }) }, "Activity in this folder"),
    );
  }

  async function moved(time) {
    if (time === at) return;
    at = time;
    // The first step of a journey is one for the back button; the rest of it is the same journey.
    note({ ...route, at }, !stepped);
    stepped = true;
    head();
    await list();
  }

  head();
  const bar = timeBar({ path, at, moved, signal }).catch((error) => (signal.aborted ? "" : problem(error)));
  const files = await list();
  const child = files?.items.findIndex((item) => join(path, fromRecord(item, "name")) === before) ?? -1;
  if (files && child > 0) files.current = child;
  main.querySelector("#time-place").replaceChildren(await bar);
  if (files) {
    files.from = undefined;
    files.render();
  }
  return () => (files?.items.length ? files.select(files.current) : undefined);
}
