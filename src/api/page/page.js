// The page as a whole.
//
// Owns which view is shown: the address says, and a view that is left is told so by its signal,
// which ends whatever it still asks for.

import { activity } from "./activity.js";
import { Refused } from "./api.js";
import { browse } from "./browse.js";
import { el, problem, say } from "./dom.js";
import { file } from "./file.js";
import { health } from "./health.js";
import { ask } from "./key.js";
import { last, show as text } from "./path.js";
import { here, href } from "./route.js";
import { search, searchField } from "./search.js";
import { snapshots } from "./snapshots.js";
import { space } from "./space.js";

const VIEWS = { "": browse, file, search, activity, space, snapshots, health };
const TITLES = { search: "Search", activity: "Activity", space: "Space", snapshots: "Snapshots", health: "Health" };

const main = document.getElementById("main");
const field = document.getElementById("q");
const nav = document.getElementById("views");
let leaving = new AbortController();
let before = "";

function links(route) {
  const current = route.view === "file" ? "" : route.view;
  const entries = [
    ["", "Files", {}],
    ["activity", "Activity", { view: "activity" }],
    ["space", "Space", { view: "space" }],
    ["snapshots", "Snapshots", { view: "snapshots" }],
    ["health", "Health", { view: "health" }],
  ];
  nav.replaceChildren(
    ...entries.map(([view, name, target]) =>
      el("a", { href: href(target), "aria-current": view === current ? "page" : null }, name),
    ),
  );
}

async function render() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const route = here();
  const focused = document.activeElement;
  const inside = focused === document.body || main.contains(focused);
  const id = focused?.id;
  document.title = `${TITLES[route.view] ?? (text(last(route.path)) || "All files")} – Horace`;
  links(route);
  if (focused !== field) field.value = route.q;
  main.setAttribute("aria-busy", "true");
  try {
    const focus = await (VIEWS[route.view] ?? browse)(main, route, signal, before);
    if (signal.aborted) return;
    if (inside && document.activeElement === document.body) {
      const same = id && main.querySelector(`#${CSS.escape(id)}`);
      if (same) same.focus();
      else if (focus) focus();
      else main.querySelector("h1")?.focus({ preventScroll: true });
    }
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Refused)) console.error(error);
    main.replaceChildren(
      problem(error, el("a", { class: "button", href: "#/" }, "All files, now")),
    );
  } finally {
    if (!signal.aborted) {
      main.removeAttribute("aria-busy");
      before = route.path;
    }
  }
}

addEventListener("hashchange", () => {
  for (const box of document.querySelectorAll("dialog[open]")) box.close();
  render();
});
searchField(field, here);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("key").addEventListener("click", async () => {
  if (await ask()) {
    say("The key is kept until this tab is closed.");
    render();
  }
});
render();
