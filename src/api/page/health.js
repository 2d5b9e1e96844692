// How the mount is, and what it takes.
//
// Owns the figures of the status, asked for again every few seconds while somebody looks.

import { get, post } from "./api.js";
import { chart } from "./chart.js";
import { el, problem, say } from "./dom.js";
import { count, plural, size, span, when } from "./format.js";

const EVERY_MS = 5000;
const SAMPLES = 24;

const ago = (ns) => when(new Date(ns / 1e6).toISOString());

function facts(pairs) {
  return el("dl", {}, pairs.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function card(title, ...inside) {
  return el("section", { class: "card" }, el("h2", {}, title), inside);
}

function state(status) {
  if (!status.degraded) return el("p", { class: "good", id: "state" }, "All is well.");
  return el("p", { class: "problem", id: "state" }, `Something is wrong: ${status.degraded}`);
}

function comparison(progress) {
  if (!progress) return [el("p", {}, "There was none yet.")];
  const words = { idle: "Not begun", import: "Taking in what is there for the first time", check: "Comparing", done: "Done" };
  const busy = progress.state === "import" || progress.state === "check";
  const bar =
    busy &&
    progress.total_files > 0 &&
    el("progress", { max: progress.total_files, value: progress.files, "aria-label": "Progress" });
  return [
    bar,
    facts([
      ["State", words[progress.state] ?? progress.state],
      ["Looked at", `${plural(progress.directories, "folder")}, ${plural(progress.files, "file")}`],
      ["Read", `${plural(progress.read_files, "file")}, ${size(progress.read_bytes)}`],
      busy && progress.eta_s !== null && ["Left", `about ${span(progress.eta_s)}`],
      progress.errors > 0 && ["Errors", count(progress.errors)],
      progress.finished_ns && ["Finished", ago(progress.finished_ns)],
    ]),
  ];
}

function checked(verify) {
  if (!verify) return [el("p", {}, "Nothing was read again yet."), el("p", {}, el("code", {}, "horace verify"), " does it.")];
  const bar =
    verify.running &&
    el("progress", { max: verify.total_bytes || 1, value: verify.bytes, "aria-label": "Progress" });
  return [
    bar,
    verify.damaged > 0 && el("p", { class: "problem" }, `${plural(verify.damaged, "thing")} damaged. \`horace verify\` names them.`),
    facts([
      ["State", verify.running ? "Reading" : "Done"],
      ["Read", `${plural(verify.files, "file")}, ${plural(verify.objects, "object")}, ${size(verify.bytes)}`],
      ["Damaged", count(verify.damaged)],
      ["Put right", count(verify.healed)],
      verify.finished && ["Finished", when(verify.finished)],
    ]),
  ];
}

function pruned(prune) {
  if (!prune) return [el("p", {}, "Nothing was pruned yet.")];
  return [
    prune.error && el("p", { class: "problem" }, prune.error),
    facts([
      ["When", when(prune.time)],
      ["Dropped", plural(prune.dropped, "version")],
      ["Freed", size(prune.freed_bytes)],
    ]),
  ];
}

function copies(backups) {
  if (!backups) return [el("p", {}, "There are none.")];
  return [
    backups.error && el("p", { class: "problem" }, backups.error),
    facts([
      ["How often", backups.every ?? "never"],
      ["Copies", `${count(backups.count)}, ${size(backups.bytes)}`],
      ["Newest", backups.last ? when(backups.last) : "none yet"],
    ]),
  ];
}

/** Samples the log evenly by number: how many changes there were over time. */
async function growth(last, signal) {
  const numbers = Array.from({ length: SAMPLES }, (_, index) => Math.floor(((last - 1) * index) / (SAMPLES - 1)));
  const points = new Map();
  for (const since of new Set(numbers)) {
    const [change] = (await get("changes", { since, limit: 1 }, signal)).items;
    if (change) points.set(change.seq, Date.parse(change.time));
  }
  return [...points].map(([seq, time]) => [time, seq]);
}

/** Shows how the mount is. */
export async function health(main, _route, signal) {
  const cards = el("div", { class: "cards" });
  const banner = el("div");
  const figure = el("div");
  main.replaceChildren(el("h1", { tabindex: -1 }, "Health"), banner, figure, cards);

  async function compare(event) {
    event.currentTarget.disabled = true;
    try {
      await post("reconcile", {});
      say("The comparison has begun.");
      await paint();
    } catch (error) {
      banner.replaceChildren(problem(error));
    }
  }

  async function paint() {
    const status = await get("status", {}, signal);
    const { space } = status;
    // What has the focus would lose it.
    if (cards.contains(document.activeElement) && document.activeElement.id !== "compare") return status;
    const held = document.activeElement?.id === "compare";
    const again = el("button", { type: "button", id: "compare", click: compare }, "Compare now");
    const saved = space?.surveyed?.ratio;
    banner.replaceChildren(state(status));
    cards.replaceChildren(
      card(
        "Mount",
        facts([
          ["Directory", status.backing],
          ["Shown at", status.mountpoint],
          ["Version", status.version],
          ["Up for", span(status.uptime_s)],
          ["Open files", count(status.open_files)],
          ["Waiting to be committed", plural(status.queue, "event")],
          ["Changes", count(status.seq)],
        ]),
      ),
      card(
        "Contents",
        facts([
          ["Names", count(status.entries)],
          ["Versions", count(status.versions)],
          ["Kept contents", `${count(status.objects)}, ${size(status.object_bytes)}`],
          space && ["In packs", `${count(space.packed_objects)} of them, ${size(space.pack_bytes)} on disk`],
          saved > 1 && ["Saved", `versions are ${saved.toFixed(1)} times as large as what is kept for them`],
          ["Write-ahead log", size(status.wal_bytes)],
        ]),
      ),
      card("Comparison with the directory", comparison(status.reconcile), again),
      card("Last check of everything", checked(status.verify)),
      card("Last prune", pruned(status.last_prune)),
      card("Copies of the catalog", copies(status.backups)),
    );
    if (held) cards.querySelector("#compare").focus({ preventScroll: true });
    return status;
  }

  const status = await paint();
  say(banner.textContent);
  const timer = setInterval(() => {
    if (document.hidden) return;
    paint().catch((error) => signal.aborted || banner.replaceChildren(problem(error)));
  }, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  growth(status.seq, signal)
    .then((points) => {
      const unit = (number) => plural(number, "change");
      if (points.length > 1) figure.replaceChildren(chart({ points, title: "Changes over time", unit }));
    })
    .catch((error) => signal.aborted || figure.replaceChildren(problem(error)));
  return undefined;
}
