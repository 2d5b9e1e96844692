// Numbers, times and people as words.
//
// Owns how values look; knows the shapes of the API's records only as far as it says them.

import { el } from "./dom.js";

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const SHORT = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
const COUNT = new Intl.NumberFormat();
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number with its thousands set off. */
export const count = (number) => COUNT.format(number);

/** A number of things: `plural(1, "step")`. */
export const plural = (number, thing) => `${count(number)} ${thing}${number === 1 ? "" : "s"}`;

/** A number of bytes. */
export function size(bytes) {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${bytes < 0 ? "−" : ""}${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** How much larger or smaller something became, in colour and with a sign. */
export function delta(bytes) {
  const kind = bytes > 0 ? "grown" : bytes < 0 ? "shrunk" : "";
  return el("span", { class: `delta ${kind}` }, bytes > 0 ? `+${size(bytes)}` : bytes < 0 ? size(bytes) : "same size");
}

/** A time as the reader's clock shows it. */
export const date = (time) => DATE.format(new Date(time));

/** The same where there is little room. */
export const shortDate = (time) => SHORT.format(new Date(time));

/** A time that programs can read, too; the exact one is its title. */
export const when = (time) => el("time", { datetime: time, title: time }, date(time));

/** A span in the largest unit that fits. */
export function span(seconds) {
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= length) return plural(Math.floor(seconds / length), unit);
  }
  return plural(Math.floor(seconds), "second");
}

/** Who caused a change. */
export function who(writer) {
  if (!writer) return "found, not seen being written";
  const user = writer.user ?? `user ${writer.uid}`;
  return writer.pid ? `${user}, ${writer.comm || "a process"} (${writer.pid})` : user;
}

const KINDS = {
  file: "file",
  dir: "folder",
  symlink: "link",
  fifo: "pipe",
  socket: "socket",
  "char-device": "device",
  "block-device": "device",
};

/** What something is. */
export const kind = (name) => KINDS[name] ?? name;
