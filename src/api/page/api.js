// What the page asks the daemon.
//
// Owns every request: the key goes with it, a refusal leads to the key's dialog, and an answer that
// is no success becomes an error with the daemon's own words. Never holds state of its own.

import { ask, key } from "./key.js";
import { asParameter } from "./path.js";

/** An answer that is no success. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

async function request(name, query, options) {
  const address = url(name, query);
  for (;;) {
    const headers = { ...options.headers };
    const used = key();
    if (used) headers.Authorization = `Bearer ${used}`;
    let response;
    try {
      response = await fetch(address, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "Horace does not answer. Is the directory still mounted? `horace status` says.");
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    const detail = told.detail ?? `the answer was ${response.status} ${response.statusText}`;
    const refused = new Refused(response.status, sentence(detail));
    const forKey = response.status === 401 || (response.status === 403 && options.method === "POST");
    // Somebody may have entered another key while this one was on its way.
    if (!forKey || (used === key() && !(await ask(refused.message)))) throw refused;
  }
}

/** The address of something, for a link. */
export function url(name, query = {}) {
  const parameters = new URLSearchParams();
  for (const [field, value] of Object.entries(query)) {
    if (value === null || value === undefined || value === "") continue;
    const pairs = field === "path" ? asParameter(value) : { [field]: value };
    for (const pair of Object.entries(pairs)) parameters.set(...pair);
  }
  return `/api/v1/${name}?${parameters}`;
}

/** Asks for something; `path` in the query is a path as `path.js` has it. */
export async function get(name, query, signal) {
  return (await request(name, query, { signal })).json();
}

/** Has something done; `path` in the body is a path as `path.js` has it. */
export async function post(name, { path, ...body }, once) {
  const headers = { "Content-Type": "application/json" };
  if (once) headers["Idempotency-Key"] = once;
  const whole = path === undefined ? body : { ...asParameter(path), ...body };
  return (await request(name, {}, { method: "POST", headers, body: JSON.stringify(whole) })).json();
}

/** Makes a name for something that is to be done once. */
export function once() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Asks for the bytes of a version, or for the first of them. */
export function content(path, version, signal, first) {
  const headers = first ? { Range: `bytes=0-${first - 1}` } : {};
  return request("content", { path, version }, { headers, signal });
}

/**
 * Gives every change after a number as it happens.
 *
 * Reads the events with `fetch`: an `EventSource` cannot show a key.
 */
export async function* follow(path, since, signal) {
  const response = await request("events", { path, since }, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
    }
  }
}
