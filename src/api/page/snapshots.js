// Snapshots of the backing filesystem: which there are, when the next come, and what has changed between two.
//
// Owns two views, and the address says which: the list, and what has changed from one snapshot (`from`) to
// another (`version`) or to now. What is pruned is decided by the daemon's policy, and shown before.

import { get, post } from "./api.js";
import { named } from "./crumbs.js";
import { el, icon, problem, say, table } from "./dom.js";
import { delta, plural, shortDate, size, span, when } from "./format.js";
import { List } from "./list.js";
import { fromRecord, show as text } from "./path.js";
import { go, href } from "./route.js";
import { confirmed } from "./steps.js";

const PAGE = 1000;
const CHANGES = 500;
const CLASSES = ["frequent", "hourly", "daily", "weekly", "monthly", "yearly"];

const place = (name, end) => `snapshots/${encodeURIComponent(name)}/${end}`;

/** Every snapshot, the newest first. */
async function all(signal) {
  const records = [];
  let after;
  do {
    const { items, next } = await get("snapshots", { after, limit: PAGE }, signal);
    records.push(...items);
    after = next;
  } while (after);
  return records.reverse();
}

function due({ next, overdue_s, failures }) {
  if (failures > 0) return el("span", { class: "tag bad" }, `failed ${plural(failures, "time")}`);
  if (overdue_s > 0) return el("span", { class: "tag bad" }, `overdue for ${span(overdue_s)}`);
  return next ? when(next) : "not known yet";
}

function schedule({ enabled, classes }) {
  if (!enabled) return el("p", {}, "None are taken unless somebody asks: that is switched off.");
  if (classes.length === 0) return el("p", {}, "None are taken unless somebody asks: the schedule is empty.");
  const columns = [["Class", "class"], ["When", "wide"], ["Stay", "number"], ["Last", "wide"], ["Next", "name"]];
  const rows = classes.map((one) => [one.class, one.schedule, one.keep, one.last ? when(one.last) : "none yet", due(one)]);
  const failed = classes.filter(({ error }) => error);
  return [
    table("When snapshots are taken", columns, rows),
    ...failed.map((one) => el("p", { class: "problem" }, `${one.class}: ${one.error}`)),
  ];
}

/** Why it stays, or whose it is. */
function remarks(record) {
  const tags = [
    record.holds > 0 && "held",
    record.base && "base of a replication",
    record.clones.length > 0 && `cloned as ${record.clones.join(", ")}`,
    record.seq === null && "not Horace’s",
  ];
  return tags.filter(Boolean).map((words) => el("span", { class: "tag" }, words));
}

/** Whether there is something to go, and what becomes of each. */
function fates({ items }) {
  const going = items.filter((item) => item.drop);
  const stuck = items.filter((item) => item.error);
  const freed = going.reduce((sum, item) => sum + (item.used ?? 0), 0);
  const rows = [...items].sort((a, b) => b.drop - a.drop).map((item) =>
    el(
      "tr",
      { class: item.error && "failed" },
      el("td", {}, item.drop ? "Goes" : "Stays"),
      el("td", {}, item.name),
      el("td", {}, [item.reason, item.error].filter(Boolean).join("; ")),
    ),
  );
  const sums = `To go: ${going.length} of ${plural(items.length, "snapshot")}${freed > 0 ? `, with at least ${size(freed)}` : ""}.`;
  return {
    work: going.length > 0,
    failed: stuck.length > 0 && `${plural(stuck.length, "snapshot")} could not be destroyed.`,
    shown: [
      el("p", { class: "sums" }, sums),
      el(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "What becomes of each" },
        el(
          "table",
          { class: "steps" },
          el("thead", {}, el("tr", {}, ["What", "Which", "Why"].map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, rows),
        ),
      ),
    ],
  };
}

/** Shows which snapshots there are, or what has changed between two. */
export function snapshots(main, route, signal) {
  return route.from ? comparison(main, route, signal) : list(main, signal);
}

async function list(main, signal) {
  const { snapshots: how } = await get("status", {}, signal);
  if (how.reason) {
    main.replaceChildren(
      el("h1", { tabindex: -1 }, "Snapshots"),
      el("p", { id: "snapshots-none" }, `There are none: ${how.reason}.`),
      el("p", {}, "Horace takes them of a ZFS dataset or of a btrfs subvolume of its own."),
    );
    return undefined;
  }
  const banner = el("div");
  const planned = el("div", { id: "snapshots-schedule", class: "snapshots" });
  const found = el("div", { id: "snapshots-list", class: "snapshots" });
  const pick = el("select", { id: "snapshots-class", "aria-label": "Class" }, CLASSES.map((name) => el("option", {}, name)));
  pick.value = "hourly";
  const act = (attributes, name, work) => el("button", { type: "button", ...attributes, click: (event) => run(event, work) }, name);
  main.replaceChildren(
    el("h1", { tabindex: -1 }, "Snapshots"),
    el("p", {}, `Of ${how.backend} `, el("bdi", {}, how.dataset)),
    el(
      "div",
      { class: "buttons left" },
      pick,
      act({ id: "snapshots-take" }, "Take one", async () => {
        const { name } = await post("snapshots", { class: pick.value });
        return `${name} was taken.`;
      }),
      act({ id: "snapshots-prune" }, "Prune…", prune),
    ),
    banner,
    found,
    el("h2", {}, "When they are taken"),
    planned,
  );

  /** Has something done, which gives the words for it, and shows what there is then. */
  async function run({ currentTarget: button }, work) {
    button.disabled = true;
    banner.replaceChildren();
    try {
      const words = await work();
      await paint();
      if (words) say(words);
    } catch (error) {
      if (!signal.aborted) banner.replaceChildren(problem(error));
    }
    button.disabled = false;
    const same = button.isConnected ? button : document.getElementById(button.id);
    if (!signal.aborted && document.activeElement === document.body) same?.focus();
  }

  async function prune() {
    await confirmed({
      title: "Prune snapshots",
      explain: "What the configuration does not keep is destroyed, and cannot be brought back. What is held or somebody else’s stays.",
      verb: "Destroy",
      nothing: "There is nothing to do: each has a reason to stay.",
      ask: (dry_run) => post("snapshots/prune", { dry_run }),
      read: fates,
    });
  }

  function row(record) {
    const { name } = record;
    const [verb, done] = record.holds > 0 ? ["release", "released"] : ["hold", "held"];
    const button = { id: `hold-${name}`, "aria-label": `${verb} ${name}` };
    const since = { href: href({ view: "snapshots", from: name }), title: "What has changed since" };
    return [
      [record.seq === null ? el("span", {}, name) : el("a", since, name), remarks(record)],
      record.class ?? "",
      when(record.time),
      record.used === null ? "" : size(record.used),
      act(button, verb === "hold" ? "Hold" : "Release", async () => {
        await post(place(name, verb), {});
        return `${name} is ${done}.`;
      }),
    ];
  }

  async function paint() {
    const [status, records] = await Promise.all([get("status", {}, signal), all(signal)]);
    const columns = [["Name", "name"], ["Class", "class wide"], ["Taken", "wide"], ["Size", "number wide"], ["Hold", "act"]];
    const sum = records.length === 0 ? "There are none yet." : `${plural(records.length, "snapshot")}, the newest first`;
    found.replaceChildren(...[records.length > 0 && table("Snapshots", columns, records.map(row)), el("p", { class: "foot" }, sum)].filter(Boolean));
    planned.replaceChildren(...[schedule(status.snapshots)].flat());
    say(sum);
  }

  await paint();
  return undefined;
}

const WORDS = { added: ["added", "create"], removed: ["removed", "unlink"], modified: ["changed", ""], renamed: ["moved", ""] };

function change(record) {
  const path = fromRecord(record);
  const links = { file: { path, view: "file" }, dir: record.change === "removed" ? null : { path } };
  const link = links[record.kind];
  const name = [icon(record.kind), named(path)];
  const from = record.from_path !== undefined && el("small", {}, " from ", el("bdi", {}, text(fromRecord(record, "from_path"))));
  const [words, style] = WORDS[record.change] ?? [record.change, ""];
  const both = record.kind === "file" && record.size !== null && record.size_before !== null;
  return [
    el("span", { class: `op ${style}` }, words),
    link ? el("a", { href: href(link), "data-focus": true }, name, from) : el("span", { "data-focus": true }, name, from),
    record.kind === "file" ? size(record.size ?? record.size_before ?? 0) : "",
    both ? delta(record.size - record.size_before) : "",
  ];
}

/** Shows what has changed from one snapshot to another, or to now. */
async function comparison(main, { from, version: to }, signal) {
  const ours = (await all(signal)).filter((record) => record.seq !== null);
  const options = ours.map(({ name, time }) => el("option", { value: name }, `${name} (${shortDate(time)})`));
  const choose = (id, label, first, value) => {
    const changed = () => go({ view: "snapshots", from: earlier.value, version: later.value });
    const select = el("select", { id, "aria-label": label, change: changed }, first, options.map((option) => option.cloneNode(true)));
    select.value = value;
    return select;
  };
  const earlier = choose("snapshot-from", "From", null, from);
  const later = choose("snapshot-to", "To", el("option", { value: "" }, "now"), to);
  const changes = new List({
    label: "What has changed",
    columns: [["What", "class"], ["Where", "name"], ["Size", "number wide"], ["Change", "number wide"]],
    more: (after) => get(place(from, "diff"), { to, after, limit: CHANGES }, signal),
    row: change,
    empty: "Nothing has changed.",
    signal,
  });
  main.replaceChildren(
    el("h1", { tabindex: -1 }, to ? "Changes between snapshots" : "Changes since a snapshot"),
    el(
      "div",
      { class: "buttons left" },
      el("label", {}, "From ", earlier),
      el("label", {}, " to ", later),
      el("a", { class: "button", href: href({ view: "snapshots" }) }, "All snapshots"),
    ),
    changes.element,
  );
  await changes.load();
  changes.from = undefined;
  changes.render();
  return undefined;
}
