// What happens, as it does.
//
// Owns a window over the newest changes: it begins with some that were, follows what comes, and
// forgets the oldest. While it is paused it listens on and shows nothing new.

import { follow, get } from "./api.js";
import { named } from "./crumbs.js";
import { el, icon, problem, say } from "./dom.js";
import { date, plural, size, when, who } from "./format.js";
import { fromRecord, show as text } from "./path.js";
import { href } from "./route.js";
import { steps } from "./steps.js";

const KEPT = 300;
const BEFORE = [100, 1000, 10000, 100000];
const PATIENCE_MS = [1000, 2000, 5000, 15000];

const COLUMNS = [
  ["When", "wide"],
  ["What"],
  ["Where", "name"],
  ["Size", "number wide"],
  ["Who", "wide"],
  ["Undo", "act"],
];

const WORDS = {
  create: "created",
  write: "saved",
  rename: "renamed",
  replace: "replaced",
  link: "linked",
  unlink: "deleted",
  attr: "attributes",
  exchange: "exchanged",
};

/** Takes back what a process did, as far as the table shows it: numbers of processes come again. */
function undo({ pid, comm }, path, body) {
  const its = [...body.rows].filter((line) => line.dataset.process === `${pid} ${comm}`);
  const since = its.at(-1).querySelector("time").dateTime;
  return steps({
    title: `Undo what ${comm} (${pid}) did`,
    explain:
      `Everything that this process has changed ${path === "" ? "" : "in this folder "}since ${date(since)}, ` +
      "its oldest change in this list, is taken back.",
    name: "undo",
    body: { pid, since, path },
    verb: "Undo",
  });
}

function row(change, folder, body) {
  const path = fromRecord(change);
  const name = [icon(change.kind), named(path)];
  const link = { file: { path, view: "file" }, dir: { path } }[change.kind];
  const source = change.from_path !== undefined && text(fromRecord(change, "from_path"));
  const from = source !== false && el("small", {}, " from ", el("bdi", {}, source));
  const { writer } = change;
  const take = {
    type: "button",
    click: () => undo(writer, folder, body),
    "aria-label": `Undo what ${who(writer)} did`,
  };
  return el(
    "tr",
    { "data-process": writer && `${writer.pid} ${writer.comm}` },
    el("td", { class: "wide" }, when(change.time)),
    el("td", {}, el("span", { class: `op ${change.op}` }, WORDS[change.op] ?? change.op)),
    el("td", { class: "name" }, link ? el("a", { href: href(link) }, name) : el("span", {}, name), from),
    el("td", { class: "number wide" }, typeof change.size === "number" ? size(change.size) : ""),
    el("td", { class: "wide" }, who(writer)),
    el("td", { class: "act" }, writer?.pid ? el("button", take, "Undo…") : ""),
  );
}

/** Finds out after which change to begin: the log is only read forwards, and little may be of this folder. */
async function lately(path, seq, signal) {
  for (const back of BEFORE) {
    const since = Math.max(seq - back, 0);
    const { items } = await get("changes", { path, since, limit: 1 }, signal);
    if (items.length > 0) return since;
  }
  return seq;
}

/** Shows the newest changes and those to come. */
export async function activity(main, route, signal) {
  const { path } = route;
  const waiting = [];
  let paused = false;
  let due = false;
  const body = el("tbody");
  const state = el("p", { id: "live", class: "live" }, "Connecting…");
  const pause = el("button", { type: "button", id: "pause", "aria-pressed": "false", click: toggle }, "Pause");
  main.replaceChildren(
    el("h1", { tabindex: -1 }, path === "" ? "Activity" : ["Activity in ", el("bdi", {}, text(path))]),
    el(
      "div",
      { class: "buttons left" },
      pause,
      path !== "" && el("a", { class: "button", href: href({ view: "activity" }) }, "Show everything"),
      state,
    ),
    el(
      "table",
      { class: "list activity", "aria-label": "Changes, newest first" },
      el(
        "thead",
        {},
        el("tr", {}, COLUMNS.map(([name, style]) => el("th", { scope: "col", class: style }, name))),
      ),
      body,
    ),
  );

  function toggle() {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    paint();
  }

  function paint() {
    due = false;
    if (signal.aborted) return;
    if (paused) {
      state.textContent = `Paused; ${plural(waiting.length, "new change")}`;
      return;
    }
    body.prepend(...waiting.splice(0).reverse().map((change) => row(change, path, body)));
    while (body.rows.length > KEPT) body.deleteRow(-1);
    state.textContent = body.rows.length ? "Live" : "Live; nothing happened here lately";
  }

  function take(change) {
    waiting.push(change);
    if (waiting.length > KEPT) waiting.shift();
    if (due) return;
    due = true;
    // Not an animation frame: there is none while the tab is hidden.
    setTimeout(paint, 100);
  }

  const { seq } = await get("status", {}, signal);
  let since = await lately(path, seq, signal);
  (async () => {
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        const changes = follow(path, since, signal);
        setTimeout(paint, 500);
        for await (const change of changes) {
          tries = 0;
          since = change.seq;
          take(change);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status >= 400) {
          state.replaceChildren(problem(error));
          return;
        }
      }
      if (signal.aborted) return;
      const wait = PATIENCE_MS[Math.min(tries, PATIENCE_MS.length - 1)];
      state.textContent = "The connection was lost; trying again…";
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  })();
  say("Activity, live");
  return undefined;
}
