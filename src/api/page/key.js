// The key of the reader.
//
// Owns where it is kept (this tab's session storage, nowhere else) and the dialog that asks for it.

import { el, say } from "./dom.js";

const PLACE = "horace-key";
let open = null;

/** The key, or null. */
export const key = () => sessionStorage.getItem(PLACE);

/** Asks for a key, once for all who ask at a time; true if there is another one then. */
export function ask(why = "") {
  open ??= dialog(why).finally(() => (open = null));
  return open;
}

const FIRST_WORDS = "Looking may need no key on this machine. Changing something does.";

const SCOPES = [
  ["read", "look at everything its user may see"],
  ["restore", "bring things back, pin versions and write notes, too"],
  ["admin", "begin comparisons, check, prune and take snapshots, too"],
];

function dialog(why) {
  const input = el("input", {
    id: "key-input",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "key-why",
    placeholder: "horace_…",
  });
  const forget = el("button", { type: "button", hidden: key() === null }, "Forget the key");
  const cancel = el("button", { type: "button" }, "Cancel");
  const form = el(
    "form",
    {},
    el("h2", { id: "key-title" }, "Key"),
    el("p", { id: "key-why", class: why && "problem" }, why || FIRST_WORDS),
    el("label", { for: "key-input" }, "Key"),
    input,
    el("p", {}, "It stays in this tab and is forgotten when the tab is closed. Make one with"),
    el("pre", {}, "horace key create NAME MOUNTPOINT --scope restore"),
    el("dl", { class: "scopes" }, SCOPES.map(([name, use]) => [el("dt", {}, el("code", {}, name)), el("dd", {}, use)])),
    el("div", { class: "buttons" }, forget, cancel, el("button", { class: "primary" }, "Use this key")),
  );
  const box = el("dialog", { "aria-labelledby": "key-title", class: "small" }, form);
  document.body.append(box);
  box.showModal();
  return new Promise((resolve) => {
    let changed = false;
    cancel.addEventListener("click", () => box.close());
    forget.addEventListener("click", () => {
      sessionStorage.removeItem(PLACE);
      say("The key is forgotten.");
      box.close();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = input.value.trim();
      // A header takes nothing else, and a key has nothing else.
      if (!/^[\x21-\x7e]+$/.test(value)) {
        input.setCustomValidity("A key begins with “horace_” and has letters and digits only.");
        input.reportValidity();
        return;
      }
      sessionStorage.setItem(PLACE, value);
      changed = true;
      box.close();
    });
    input.addEventListener("input", () => input.setCustomValidity(""));
    box.addEventListener("close", () => {
      box.remove();
      resolve(changed);
    });
  });
}
