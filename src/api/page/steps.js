// The dialog between wanting to change something and changing it.
//
// Owns the order: what would happen is asked for and shown, and only what was shown can be confirmed.
// The confirmation has a name of its own, so that it is done once however often it is sent.

import { once, post } from "./api.js";
import { el, problem, say } from "./dom.js";
import { plural, size } from "./format.js";
import { fromRecord, show } from "./path.js";

const SHOWN = 500;

const ACTIONS = {
  remove: ["Move into history", "moved into history"],
  dir: ["Make the folder", "made a folder again"],
  move: ["Move", "moved"],
  link: ["Link", "linked"],
  file: ["Bring back the content", "brought back"],
  symlink: ["Bring back the link", "links brought back"],
  special: ["Bring back the device or pipe", "brought back"],
  attributes: ["Set permissions and times", "given their permissions and times"],
  none: ["Leave as it is", "left as they are"],
};

function line(step) {
  const [action] = ACTIONS[step.action] ?? [step.action];
  const from = step.from_path ? ` from ${show(fromRecord(step, "from_path"))}` : "";
  const facts = [step.size === null ? "" : size(step.size), step.reason ?? ""].filter(Boolean).join("; ");
  return el(
    "tr",
    { class: step.outcome },
    el("td", {}, step.outcome === "failed" ? `Failed: ${action}` : action),
    el("td", {}, el("bdi", {}, show(fromRecord(step)) || "All files", from)),
    el("td", {}, facts),
  );
}

function table(answer) {
  const counts = new Map();
  for (const { action } of answer.steps) counts.set(action, (counts.get(action) ?? 0) + 1);
  const sums = [...counts].map(([action, number]) => `${number} ${ACTIONS[action]?.[1] ?? action}`).join(", ");
  // What went wrong is never among what is left out.
  const sorted = [...answer.steps].sort((a, b) => (b.outcome === "failed") - (a.outcome === "failed"));
  return [
    el("p", { class: "sums" }, `${plural(answer.steps.length, "step")}: ${sums}.`),
    el(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Steps" },
      el(
        "table",
        { class: "steps" },
        el("thead", {}, el("tr", {}, ["What", "Where", "Details"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, sorted.slice(0, SHOWN).map(line)),
      ),
    ),
    answer.steps.length > SHOWN && el("p", {}, `The first ${SHOWN} steps are listed.`),
  ].filter(Boolean);
}

/** Shows what a request would do to files, and does it if that is confirmed; true if it was done. */
export function steps({ title, explain, name, body, verb }) {
  return confirmed({
    title,
    explain,
    verb,
    nothing: "There is nothing to do: it is like that already.",
    ask: (dry_run, key) => post(name, { ...body, dry_run }, key),
    read: (answer) => {
      const work = answer.steps.some((step) => step.action !== "none");
      const failed = answer.failed > 0 && `${plural(answer.failed, "step")} failed; the rest is done.`;
      return { work, failed, shown: work || failed ? table(answer) : [] };
    },
  });
}

/**
 * Asks what would be done, and has it done if that is confirmed; true if it was done.
 *
 * `ask(dry_run, key)` gives an answer, of which `read` says whether there is `work`, what has `failed`, and what
 * is to be `shown`.
 */
export function confirmed({ title, explain, verb, nothing, ask, read }) {
  const place = el("div", { "aria-live": "polite" }, el("p", {}, "Finding out what will happen…"));
  const cancel = el("button", { type: "button" }, "Cancel");
  const confirm = el("button", { type: "button", class: "primary", disabled: true, id: "confirm" }, verb);
  const box = el(
    "dialog",
    { "aria-labelledby": "steps-title" },
    el("h2", { id: "steps-title" }, title),
    el("p", {}, explain),
    place,
    el("div", { class: "buttons" }, cancel, confirm),
  );
  const key = once();
  let done = false;
  document.body.append(box);
  box.showModal();

  async function plan() {
    try {
      const { work, failed, shown } = read(await ask(true));
      place.replaceChildren(...(work || failed ? [] : [el("p", {}, nothing)]), ...shown);
      confirm.disabled = !work;
      if (work) confirm.focus();
      else cancel.textContent = "Close";
    } catch (error) {
      place.replaceChildren(problem(error));
    }
  }

  async function act() {
    confirm.disabled = true;
    cancel.disabled = true;
    const shown = [...place.childNodes];
    place.prepend(el("p", {}, "Working…"));
    try {
      const { failed, shown } = read(await ask(false, key));
      const words = failed || "Done.";
      say(words);
      place.replaceChildren(el("p", { class: failed ? "problem" : "good", id: "outcome" }, words), ...shown);
      done = true;
      confirm.hidden = true;
      cancel.textContent = "Close";
    } catch (error) {
      place.replaceChildren(problem(error), ...shown);
      confirm.disabled = false;
    }
    cancel.disabled = false;
    cancel.focus();
  }

  cancel.addEventListener("click", () => box.close());
  confirm.addEventListener("click", act);
  plan();
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      resolve(done);
    });
  });
}
