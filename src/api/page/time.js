// The time at which the tree is looked at.
//
// Owns the slider. Its scale is the changes, one step each, and not the clock: a quiet month takes
// no room and a busy minute can be told apart. Its last step is now. A time can be typed as well.

import { get } from "./api.js";
import { el, problem, say } from "./dom.js";
import { date } from "./format.js";

const WAIT_MS = 120;

/** The first change after a number, anywhere or at and below a path; undefined if there is none. */
async function changeAfter(seq, path, signal) {
  return (await get("changes", { path, since: seq, limit: 1 }, signal)).items[0];
}

/** The last change before a number at and below a path: the log is only read forwards. */
async function changeBefore(seq, path, signal) {
  for (let back = 500; ; back *= 10) {
    let since = Math.max(seq - 1 - back, 0);
    let found;
    for (let more = true; more; ) {
      const { items, next } = await get("changes", { path, since, limit: 1000 }, signal);
      const before = items.filter((change) => change.seq < seq);
      found = before.at(-1) ?? found;
      more = next !== null && before.length === items.length;
      since = next;
    }
    if (found || back >= seq) return found;
  }
}

/** How many changes there were until a time. */
async function countUntil(time, last, signal) {
  let low = 0;
  let high = last;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const change = await changeAfter(middle, undefined, signal);
    if (change && Date.parse(change.time) <= time) low = change.seq;
    else high = middle;
  }
  return low;
}

const local = (time) => {
  const shifted = new Date(Date.parse(time) - new Date(time).getTimezoneOffset() * 60000);
  return shifted.toISOString().slice(0, 19);
};

/** Makes the bar; `moved(at)` hears of another time, "" for now, and `final` when the hand rests. */
export async function timeBar({ path, at, moved, signal }) {
  const { seq: last } = await get("status", {}, signal);
  const now = last + 1;
  let position = at === "" ? now : await countUntil(Date.parse(at), last, signal);
  let stepping = false;
  let timer;
  let asked;

  const label = el("output", { id: "time-label", for: "time-slider" });
  const slider = el("input", {
    id: "time-slider",
    type: "range",
    min: 1,
    max: now,
    step: 1,
    "aria-label": "Time, by changes",
    input: () => settle(Number(slider.value)),
    change: () => settle(Number(slider.value), 0),
  });
  const typed = el("input", { id: "time-typed", type: "datetime-local", step: 1, change: () => type() });
  const button = (id, text, name, click) =>
    el("button", { type: "button", id, "aria-label": name, title: name, click }, text);
  const earlier = button("earlier", "‹", "The change before, in this folder", () => step(changeBefore));
  const later = button("later", "›", "The next change in this folder", () => step(changeAfter));
  const toNow = button("now", "Now", "Back to now", () => tell(now, ""));

  function paint(time) {
    const isNow = time === "";
    label.textContent = isNow ? "Now" : date(time);
    label.classList.toggle("past", !isNow);
    slider.value = position;
    slider.setAttribute("aria-valuetext", label.textContent);
    if (document.activeElement !== typed) typed.value = isNow ? "" : local(time);
    later.disabled = isNow;
    toNow.disabled = isNow;
  }

  function tell(where, time) {
    position = where;
    paint(time);
    say(time === "" ? "Showing now" : `Showing ${date(time)}`);
    moved(time);
  }

  /** Waits until the hand slows down, and asks when the change was. */
  function settle(where, wait = WAIT_MS) {
    clearTimeout(timer);
    asked?.abort();
    if (where === position) return;
    asked = new AbortController();
    const mine = asked.signal;
    timer = setTimeout(async () => {
      if (signal.aborted) return;
      if (where >= now) {
        tell(now, "");
        return;
      }
      try {
        const change = await changeAfter(where - 1, undefined, mine);
        if (mine.aborted || signal.aborted) return;
        if (change) tell(where, change.time);
        else tell(now, "");
      } catch (error) {
        if (!mine.aborted) fail(error);
      }
    }, wait);
  }

  function fail(error) {
    if (!signal.aborted) label.replaceChildren(problem(error));
  }

  async function step(find) {
    if (stepping) return;
    stepping = true;
    let change;
    try {
      change = await find(position, path, signal);
    } catch (error) {
      fail(error);
      return;
    } finally {
      stepping = false;
    }
    if (change) tell(change.seq, change.time);
    else if (find === changeAfter) tell(now, "");
    else say("There is no earlier change here.");
  }

  async function type() {
    if (typed.value === "") {
      tell(now, "");
      return;
    }
    const time = new Date(typed.value).toISOString();
    try {
      tell(await countUntil(Date.parse(time), last, signal), time);
    } catch (error) {
      fail(error);
    }
  }

  paint(at);
  return el(
    "section",
    { class: "time", "aria-label": "Time" },
    el("div", { class: "slide" }, earlier, slider, later, toNow),
    el("div", { class: "said" }, label, el("label", { for: "time-typed" }, "Go to"), typed),
  );
}
