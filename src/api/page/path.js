// Paths as the file system has them: bytes.
//
// Owns the one form a path has in this page: a string with a character from 0 to 255 for each byte,
// relative to the root, "" for the root itself. It can be joined, split and compared, and holds
// names that are not UTF-8. It becomes text only to be shown, and a parameter only to be sent.

// The forms of a character in UTF-8, and last a byte that is none.
const PIECE = new RegExp(
  [
    "[\\x00-\\x7f]",
    "[\\xc2-\\xdf][\\x80-\\xbf]",
    "\\xe0[\\xa0-\\xbf][\\x80-\\xbf]",
    "[\\xe1-\\xec\\xee\\xef][\\x80-\\xbf]{2}",
    "\\xed[\\x80-\\x9f][\\x80-\\xbf]",
    "\\xf0[\\x90-\\xbf][\\x80-\\xbf]{2}",
    "[\\xf1-\\xf3][\\x80-\\xbf]{3}",
    "\\xf4[\\x80-\\x8f][\\x80-\\xbf]{2}",
    "[\\x80-\\xff]",
  ].join("|"),
  "g",
);

// What turns text around, hides in it or breaks the line; `show` makes it visible.
const UNSEEN = /[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

const bytesOf = (path) => Uint8Array.from(path, (char) => char.charCodeAt(0));

/** Takes the bytes of a text. */
export function fromText(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** Takes the field `name`, `path` or `from_path` of a record, exact where it has a `_base64` beside it. */
export function fromRecord(record, field = "path") {
  const exact = record[`${field}_base64`];
  return exact ? atob(exact) : fromText(record[field]);
}

/** Gives the path as the API takes it, in a query or in a body. */
export function asParameter(path) {
  try {
    return { path: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytesOf(path)) };
  } catch {
    return { path_base64: btoa(path) };
  }
}

/** Gives the path as text to look at: bytes that are no text and characters that deceive are spelt out. */
export function show(path) {
  const text = path.replace(PIECE, (piece) => {
    if (piece.length === 1 && piece > "\x7f") {
      return `\\x${piece.charCodeAt(0).toString(16).toUpperCase()}`;
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOf(piece));
  });
  return text.replace(UNSEEN, (char) => {
    const code = char.charCodeAt(0);
    if (code < 0x20) return ESCAPES[char] ?? `\\x${code.toString(16).toUpperCase().padStart(2, "0")}`;
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** Puts a name below a directory. */
export function join(directory, name) {
  return directory === "" ? name : `${directory}/${name}`;
}

/** The directory that a path is in. */
export function parent(path) {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

/** The last name of a path. */
export function last(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}
