// Where the reader is, kept in the address.
//
// Owns the part of the address after `#`: `#/PATH?view=…&at=…`, the path's bytes as in any URL. All
// that decides what is seen is in it, so that it can be sent to somebody and the back button works.

import { fromText } from "./path.js";

const FIELDS = ["view", "at", "version", "from", "q", "deleted"];

/** Reads the address. */
export function here() {
  const hash = location.hash.replace(/^#\/?/, "");
  const cut = hash.indexOf("?");
  const [path, query] = cut < 0 ? [hash, ""] : [hash.slice(0, cut), hash.slice(cut + 1)];
  const parameters = new URLSearchParams(query);
  const route = {
    path: fromText(path)
      .replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)))
      .replace(/^\/+|\/+$/g, ""),
  };
  for (const field of FIELDS) route[field] = parameters.get(field) ?? "";
  return route;
}

/** Writes the address of a place. */
export function href(route) {
  const path = (route.path ?? "").replace(
    /[^A-Za-z0-9._~/-]/g,
    (char) => `%${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  const parameters = new URLSearchParams();
  for (const field of FIELDS) if (route[field]) parameters.set(field, route[field]);
  const query = parameters.toString();
  return `#/${path}${query && `?${query}`}`;
}

/** Goes to a place. */
export function go(route) {
  location.hash = href(route);
}

/** Notes in the address what is on the screen already; `step` says whether back leads to what was there. */
export function note(route, step) {
  if (step) history.pushState(null, "", href(route));
  else history.replaceState(null, "", href(route));
}
