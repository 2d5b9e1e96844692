// Elements, and what is said aloud.
//
// Owns how the page makes nodes: data becomes text nodes and attribute values, never markup. Nothing
// here knows the API.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Makes an element; an attribute with a function is a listener, `null` and `false` leave it out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Says something to who listens instead of looking. */
export function say(text) {
  document.getElementById("status").textContent = text;
}

/** Shows an error where the thing itself would be, with what can be done. */
export function problem(error, ...actions) {
  const forKey = error.status === 401 || error.status === 403;
  // The header's button asks for the key and shows everything anew.
  const ask = () => document.getElementById("key").click();
  const enter = forKey && el("button", { type: "button", click: ask }, "Enter a key…");
  return el("div", { class: "problem", role: "alert" }, el("p", {}, error.message), enter, actions);
}

/** Makes a table; `columns` are pairs of a heading and a class, `rows` have a cell for each. */
export function table(label, columns, rows) {
  const head = el("tr", {}, columns.map(([name, style]) => el("th", { scope: "col", class: style }, name)));
  const lines = rows.map((cells) => el("tr", {}, cells.map((cell, at) => el("td", { class: columns[at][1] }, cell))));
  return el("table", { class: "list", "aria-label": label }, el("thead", {}, head), el("tbody", {}, lines));
}

/** Lets the arrow keys, Home and End move the focus between the elements that match. */
export function arrows(container, selector) {
  container.addEventListener("keydown", (event) => {
    const all = [...container.querySelectorAll(selector)];
    const here = all.indexOf(event.target);
    if (here < 0) return;
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    all[Math.min(Math.max(to, 0), all.length - 1)].focus();
  });
}

const ICONS = {
  dir: "M1.5 3.5h5l1.5 2h6.5v7.5h-13z",
  file: "M3.5 1.5h6l3 3v10h-9z M9.5 1.5v3h3",
  symlink: "M6.5 9.5l3-3 M7.5 4.5l1-1a2.8 2.8 0 0 1 4 4l-1 1 M8.5 11.5l-1 1a2.8 2.8 0 0 1-4-4l1-1",
  other: "M8 2l6 6-6 6-6-6z",
};

/** Draws what kind of thing a name is; the words for it stand elsewhere. */
export function icon(kind) {
  return svg(
    "svg",
    { class: `icon ${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: ICONS[kind] ?? ICONS.other }),
  );
}
