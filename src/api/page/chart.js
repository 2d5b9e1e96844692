// Drawings of numbers over time.

import { el, svg } from "./dom.js";
import { date, shortDate } from "./format.js";

const [WIDTH, HEIGHT] = [600, 90];

/**
 * Draws a value over time as steps: it holds until the next point.
 *
 * `points` are pairs of a time in ms and a value, oldest first; `unit` says a value in words.
 */
export function chart({ points, title, unit }) {
  const first = points[0][0];
  const end = points.at(-1)[0];
  // The last value holds on: without some room it would not be seen.
  const last = end + Math.max((end - first) / 20, 1);
  const most = Math.max(...points.map(([, value]) => value), 1);
  const x = (time) => (((time - first) / (last - first)) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - (value / most) * (HEIGHT - 6) - 1).toFixed(1);
  const steps = points.map(([time, value]) => `H${x(time)}V${y(value)}`).join("");
  const line = `M0 ${y(points[0][1])}${steps}H${WIDTH}`;
  const words = `${title}: from ${unit(points[0][1])} on ${date(first)} to ${unit(points.at(-1)[1])}; at most ${unit(most)}.`;
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("span", {}, title), el("span", {}, `up to ${unit(most)}`)),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
      svg("path", { class: "area", d: `${line}V${HEIGHT}H0Z` }),
      svg("path", { class: "line", d: line }),
    ),
    el("p", { "aria-hidden": "true" }, el("span", {}, shortDate(first)), el("span", {}, shortDate(end))),
  );
}
