// A long table of which only a window is in the page.
//
// Owns which rows exist: those on the screen and some around them. Further items are asked for as
// the reader comes near the end, so that a directory of a million names costs what is looked at.
// Rows are of one height, which the style sheet sets.

import { el, problem, say } from "./dom.js";
import { count } from "./format.js";

const AROUND = 20;

export class List {
  /**
   * `more(next)` gives `{items, next}`, `row(item)` the cells; the element in them that takes the
   * focus has `data-focus`. `columns` are pairs of a heading and a class.
   */
  constructor({ label, columns, more, row, empty, signal }) {
    Object.assign(this, { columns, more, row, empty, signal });
    this.items = [];
    this.next = undefined;
    this.current = 0;
    this.body = el("tbody");
    this.table = el(
      "table",
      {
        class: "list",
        tabindex: -1,
        "aria-label": label,
        keydown: (event) => this.key(event),
        focusin: (event) => this.focused(event),
      },
      el("thead", {}, el("tr", {}, columns.map(([name, style]) => el("th", { scope: "col", class: style }, name)))),
      this.body,
    );
    this.foot = el("p", { class: "foot" });
    this.element = el("div", {}, this.table, this.foot);
    const render = () => this.render();
    addEventListener("scroll", render, { signal, passive: true });
    addEventListener("resize", render, { signal, passive: true });
  }

  /** Asks for the next items; true if there are some. */
  async load() {
    if (this.next === null || this.loading) return false;
    this.loading = true;
    this.foot.textContent = "Loading…";
    try {
      const { items, next } = await this.more(this.next);
      this.items.push(...items);
      this.next = next ?? null;
      this.foot.textContent =
        this.items.length === 0 ? this.empty : `${count(this.items.length)} shown${this.next === null ? "" : ", more below"}`;
      say(this.foot.textContent);
    } catch (error) {
      if (error.name === "AbortError") return false;
      this.next = null;
      this.foot.replaceChildren(problem(error));
    } finally {
      this.loading = false;
    }
    this.from = undefined;
    this.render();
    return true;
  }

  render() {
    if (this.signal.aborted) return;
    const height = this.height();
    const top = this.body.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(-top / height) - AROUND);
    const to = Math.min(this.items.length, Math.ceil((innerHeight - top) / height) + AROUND);
    if (to >= this.items.length - AROUND && this.items.length > 0) this.load();
    if (from === this.from && to === this.to) return;
    const held = this.body.contains(document.activeElement);
    this.from = from;
    this.to = to;
    const space = (rows) => {
      const cell = el("td");
      cell.style.height = `${rows * height}px`;
      return rows > 0 && el("tr", { "aria-hidden": "true", class: "space" }, cell);
    };
    const rows = this.items.slice(from, Math.max(from, to)).map((item, offset) => this.line(item, from + offset));
    this.body.replaceChildren(...[space(from), ...rows, space(this.items.length - Math.max(from, to))].filter(Boolean));
    this.table.setAttribute("aria-rowcount", this.next === null ? this.items.length + 1 : -1);
    if (held && !this.take()) this.table.focus({ preventScroll: true });
  }

  line(item, index) {
    const cells = this.row(item).map((content, column) => el("td", { class: this.columns[column][1] }, content));
    const line = el("tr", { "aria-rowindex": index + 2, "data-index": index }, cells);
    line.querySelector("[data-focus]").tabIndex = index === this.current ? 0 : -1;
    return line;
  }

  height() {
    return this.body.querySelector("[data-index]")?.offsetHeight || 40;
  }

  /** Gives the focus to the current row, if it is there. */
  take() {
    const target = this.body.querySelector(`[data-index="${this.current}"] [data-focus]`);
    target?.focus({ preventScroll: true });
    return Boolean(target);
  }

  /** Makes a row the current one, and brings it into view. */
  select(index) {
    this.current = Math.min(Math.max(index, 0), this.items.length - 1);
    const height = this.height();
    const top = this.body.getBoundingClientRect().top + this.current * height;
    const bar = document.querySelector("header").offsetHeight;
    if (top < bar + height) scrollBy(0, top - bar - height);
    else if (top + 2 * height > innerHeight) scrollBy(0, top + 2 * height - innerHeight);
    this.from = undefined;
    this.render();
    this.take();
  }

  focused(event) {
    const line = event.target.closest("[data-index]");
    if (!line || !event.target.matches("[data-focus]")) return;
    for (const other of this.body.querySelectorAll('[data-focus][tabindex="0"]')) other.tabIndex = -1;
    event.target.tabIndex = 0;
    this.current = Number(line.dataset.index);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.items.length === 0) return;
    const page = Math.max(1, Math.floor(innerHeight / this.height()) - 4);
    const all = this.items.length;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -all, End: all };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.select(this.current + step);
  }
}
