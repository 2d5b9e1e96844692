// A file and its versions.
//
// Owns the timeline of versions and, beside it, what the chosen one looks like or how two differ.

import { get, post } from "./api.js";
import { chart } from "./chart.js";
import { crumbs } from "./crumbs.js";
import { sides } from "./diff.js";
import { arrows, el, problem, say } from "./dom.js";
import { date, delta, plural, size, when, who } from "./format.js";
import { last, show as text } from "./path.js";
import { download, preview } from "./preview.js";
import { href, note } from "./route.js";
import { steps } from "./steps.js";

const PAGE = 200;

const LOST = {
  unseen: "it was never seen by Horace",
  "too-large": "it was too large to keep",
  "no-space": "there was no space left",
  failed: "keeping it failed",
  overwritten: "it was overwritten in place",
  pruned: "it was pruned",
  gone: "it is gone",
  excluded: "its path is excluded",
};

const ORIGINS = {
  import: "there when Horace came",
  external: "changed around the mount",
  restore: "brought back",
  migrated: "known before Horace came",
};

/** Shows a file. */
export async function file(main, route, signal) {
  const { path } = route;
  const versions = [];
  let next;
  let alive = true;
  let panel = new AbortController();
  signal.addEventListener("abort", () => panel.abort());

  const timeline = el("ol", { class: "versions", "aria-label": "Versions, newest first" });
  const older = el("button", { type: "button", hidden: true, click: () => load() }, "Load older versions");
  const figure = el("div");
  const notice = el("div");
  const side = el("section", { class: "panel", "aria-label": "Version" });
  main.replaceChildren(
    crumbs(path, route.at),
    notice,
    el("div", { class: "halves" }, el("section", { "aria-label": "Versions" }, figure, timeline, older), side),
  );
  arrows(timeline, "a");

  async function load() {
    const page = await get("versions", { path, after: next, limit: PAGE }, signal);
    versions.push(...page.items);
    next = page.next;
    older.hidden = next === null;
    draw();
  }

  function draw() {
    timeline.replaceChildren(...versions.map(entry));
    mark();
    if (versions.length > 1) {
      const points = [...versions].reverse().map((version) => [Date.parse(version.time), version.size]);
      figure.replaceChildren(chart({ points, title: "Size over time", unit: size }));
    }
  }

  function entry(version, index) {
    const old = versions[index + 1];
    const first = next === null && el("span", { class: "delta grown" }, "first");
    const origin = ORIGINS[version.origin];
    return el(
      "li",
      {},
      el(
        "a",
        { href: href({ path, view: "file", version: String(version.number) }), "data-version": version.number, click: choose },
        el("strong", {}, `Version ${version.number}`),
        alive && version.content === "head" && el("span", { class: "tag" }, "current"),
        version.pinned && el("span", { class: "tag" }, "pinned"),
        version.content === "none" && el("span", { class: "tag bad" }, "content not kept"),
        el("span", {}, when(version.time)),
        el("span", {}, who(version.writer), origin && `; ${origin}`),
        el("span", {}, size(version.size), " ", old ? delta(version.size - old.size) : first),
        version.note && el("q", {}, version.note),
      ),
    );
  }

  function mark() {
    for (const link of timeline.querySelectorAll("a")) {
      const current = link.dataset.version === route.version;
      if (current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      link.tabIndex = current ? 0 : -1;
    }
  }

  function choose(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    turn({ version: event.currentTarget.dataset.version, from: "" });
  }

  function turn(change) {
    Object.assign(route, change);
    note(route, true);
    mark();
    detail();
  }

  function markButton(label, body, words) {
    return el("button", { type: "button", id: `mark-${label.toLowerCase()}`, click: () => change(body, words) }, label);
  }

  async function change(body, words) {
    try {
      const changed = await post("marks", { path, version: route.version, ...body });
      const index = versions.findIndex((version) => version.number === changed.number);
      versions[index] = changed;
      draw();
      detail();
      say(words);
    } catch (error) {
      notice.replaceChildren(problem(error));
    }
  }

  function noteForm(version) {
    const input = el("input", { id: "note", type: "text", value: version.note ?? "", maxlength: 500 });
    return el(
      "form",
      {
        class: "note",
        submit: (event) => {
          event.preventDefault();
          change({ note: input.value }, "The note is saved.");
        },
      },
      el("label", { for: "note" }, "Note"),
      input,
      el("button", {}, "Save"),
    );
  }

  async function restore() {
    const version = versions.find(({ number }) => String(number) === route.version);
    const done = await steps({
      title: `Restore version ${version.number} of “${text(last(path))}”`,
      explain: `The file gets the content it had on ${date(version.time)}. What it has now stays in history.`,
      name: "restore",
      body: { path, version: String(version.number) },
      verb: "Restore",
    });
    if (done) again();
  }

  async function undelete() {
    const done = await steps({
      title: `Undelete “${text(last(path))}”`,
      explain: "The file comes back where it was.",
      name: "undelete",
      body: { path },
      verb: "Undelete",
    });
    if (done) again();
  }

  /** Reads the versions anew and shows the newest. */
  async function again() {
    if (signal.aborted) return;
    versions.length = 0;
    next = undefined;
    await load();
    await check();
    route.version = String(versions[0].number);
    route.from = "";
    note(route, false);
    mark();
    detail();
    timeline.querySelector("[aria-current]").focus({ preventScroll: true });
  }

  /** Finds out whether the newest version's file still has this name; a version alone does not say. */
  async function check() {
    alive = await get("manifest", { path }, signal).then(
      ({ file_id: id }) => id === versions[0].file_id,
      (error) => error.status !== 404,
    );
    draw();
    const back = el("button", { type: "button", click: undelete }, "Undelete…");
    notice.replaceChildren(alive ? "" : el("p", { class: "problem" }, "Nothing has this name any more. ", back));
  }

  function picker(id, label, value, pick) {
    const options = versions.map(({ number, time }) =>
      el("option", { value: number, selected: String(number) === value }, `Version ${number}, ${date(time)}`),
    );
    return [el("label", { for: id }, label), el("select", { id, change: (event) => pick(event.currentTarget.value) }, options)];
  }

  async function compare(signal) {
    const answer = await get("diff", { path, a: route.from, b: route.version }, signal);
    if (answer.same) return [el("p", { class: "empty" }, "The two versions have the same content.")];
    if (!answer.unified) {
      const sizes = `${size(answer.a.size)} and ${size(answer.b.size)}`;
      return [el("p", { class: "empty" }, `They differ, but not as texts that can be compared: ${sizes}.`)];
    }
    return sides(answer.unified, `Version ${route.from}`, `Version ${route.version}`);
  }

  async function look(version, signal) {
    if (version.content === "none") {
      const why = LOST[version.content_reason] ?? "it was not kept";
      return [el("p", { class: "empty" }, `The content of this version is not there: ${why}.`)];
    }
    const prefix = version.content === "prefix" && el("p", { class: "empty" }, "Only the beginning of this version was kept.");
    return [prefix, await preview(path, version, signal)];
  }

  async function detail() {
    panel.abort();
    panel = new AbortController();
    const mine = panel.signal;
    const version = versions.find(({ number }) => String(number) === route.version);
    const place = el("div", { class: "content" }, el("p", {}, "Loading…"));
    const previous = versions.find(({ number }) => number < version.number);
    const tab = (name, on, click, able = true) => {
      const id = `tab-${name.toLowerCase()}`;
      return el("button", { type: "button", id, "aria-pressed": String(on), disabled: !able, click }, name);
    };
    const comparing = route.from !== "";
    const held = side.contains(document.activeElement) && document.activeElement.id;
    side.replaceChildren(
      el("h2", {}, comparing ? `Version ${route.from} and version ${version.number}` : `Version ${version.number}`),
      el(
        "div",
        { class: "buttons left" },
        tab("Preview", !comparing, () => turn({ from: "" })),
        tab("Compare", comparing, () => turn({ from: String(previous.number) }), Boolean(previous)),
        (version.content === "object" || (version.content === "head" && !alive)) &&
          el("button", { type: "button", id: "restore", class: "primary", click: restore }, "Restore…"),
        version.content === "none" || download(path, route.version),
        version.pinned
          ? markButton("Unpin", { pinned: false }, "The version is left to the policy again.")
          : markButton("Pin", { pinned: true }, "The version is kept whatever the policy says."),
      ),
      comparing
        ? el(
            "div",
            { class: "pickers" },
            picker("pick-from", "From", route.from, (from) => turn({ from })),
            picker("pick-to", "to", route.version, (to) => turn({ version: to })),
          )
        : noteForm(version),
      place,
    );
    if (held) side.querySelector(`#${held}`)?.focus({ preventScroll: true });
    try {
      const shown = comparing ? await compare(mine) : await look(version, mine);
      if (!mine.aborted) place.replaceChildren(...shown.filter(Boolean));
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(problem(error));
    }
  }

  await load();
  if (versions.length === 0) {
    notice.replaceChildren(el("p", { class: "empty" }, "No version of this file is known yet."));
    return undefined;
  }
  await check();
  const wanted = () => versions.find(({ number }) => String(number) === route.version);
  const then = () => versions.find(({ time }) => Date.parse(time) <= Date.parse(route.at));
  while (route.version && !wanted() && next !== null) await load();
  while (!route.version && route.at && !then() && next !== null) await load();
  const chosen = wanted() ?? (route.at ? then() : undefined) ?? versions[0];
  route.version = String(chosen.number);
  mark();
  detail();
  say(`${plural(versions.length, "version")} of ${text(last(path))}`);
  return () => timeline.querySelector("[aria-current]").focus({ preventScroll: true });
}
