// Two versions of a text beside each other.
//
// Owns how a unified diff becomes rows: what was taken away stands on the left of what came instead.

import { el } from "./dom.js";

const SHOWN = 1000;
const HUNK = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/;

/** Reads a unified diff into rows: `{hunk}`, or `{left, right}` of which each is `{number, text}` or missing. */
function rows(unified) {
  const lines = unified.split("\n");
  const result = [];
  let at = 0;
  while (at < lines.length) {
    const head = HUNK.exec(lines[at]);
    at += 1;
    if (!head) continue;
    result.push({ hunk: `Line ${head[1]} on the left, line ${head[3]} on the right` });
    let [left, right] = [Number(head[1]), Number(head[3])];
    let [leftEnd, rightEnd] = [left + Number(head[2] ?? 1), right + Number(head[4] ?? 1)];
    let [gone, come] = [[], []];
    const pair = () => {
      for (let index = 0; index < Math.max(gone.length, come.length); index += 1) {
        result.push({ left: gone[index], right: come[index] });
      }
      [gone, come] = [[], []];
    };
    for (; at < lines.length; at += 1) {
      const [sign, text] = [lines[at][0], lines[at].slice(1)];
      if (sign === "\\") {
        const side = come.length ? come : gone;
        if (side.length) side.at(-1).open = true;
      } else if (left >= leftEnd && right >= rightEnd) break;
      else if (sign === "-") {
        if (come.length) pair();
        gone.push({ number: left++, text });
      } else if (sign === "+") come.push({ number: right++, text });
      else {
        pair();
        result.push({ left: { number: left++, text }, right: { number: right++, text }, same: true });
      }
    }
    pair();
  }
  return result;
}

/** Splits two lines into what they share at both ends and what differs between. */
function between(a, b) {
  let from = 0;
  while (from < a.length && a[from] === b[from]) from += 1;
  let to = 0;
  while (to < Math.min(a.length, b.length) - from && a.at(-1 - to) === b.at(-1 - to)) to += 1;
  return [from, to];
}

function cell(side, other, style, tag, same) {
  if (!side) return [el("td", { class: `line ${style} none` }), el("td", { class: `text ${style} none` })];
  const { number, text, open } = side;
  let inside = [text];
  if (other && !same) {
    const [from, to] = between(text, other.text);
    // In lines that have little in common there is nothing to point at.
    if ((from + to) * 2 > Math.max(text.length, other.text.length)) {
      const end = text.length - to;
      inside = [text.slice(0, from), el("mark", {}, text.slice(from, end)), text.slice(end)];
    }
  }
  return [
    el("td", { class: `line ${style}` }, String(number)),
    el(
      "td",
      { class: `text ${style}` },
      same ? inside : el(tag, {}, inside),
      open && el("small", {}, " (no line break at the end)"),
    ),
  ];
}

function line(row) {
  if (row.hunk) return el("tr", { class: "hunk" }, el("td", { colspan: 4 }, row.hunk));
  return el(
    "tr",
    { class: row.same ? "same" : "" },
    cell(row.left, row.right, row.same ? "left" : "left gone", "del", row.same),
    cell(row.right, row.left, row.same ? "right" : "right come", "ins", row.same),
  );
}

/** Makes a table of a unified diff, the first lines at first. */
export function sides(unified, left, right) {
  const all = rows(unified);
  const body = el("tbody");
  const more = el("button", { type: "button" }, "Show more");
  let shown = 0;
  const add = () => {
    body.append(...all.slice(shown, shown + SHOWN).map(line));
    shown += SHOWN;
    more.hidden = shown >= all.length;
  };
  more.addEventListener("click", add);
  add();
  return [
    el(
      "table",
      { class: "diff" },
      el("colgroup", {}, el("col", { class: "line" }), el("col"), el("col", { class: "line" }), el("col")),
      el("thead", {}, el("tr", {}, [left, right].map((name) => el("th", { scope: "col", colspan: 2 }, name)))),
      body,
    ),
    more,
  ];
}
