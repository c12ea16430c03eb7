// Plots for paper: pictures made at once from the same data, light, with dashes that tell lines apart.
//
// The plots of the screen are drawn by a library that is unpacked when they come into view, which is
// too late when a page is printed without having been read to its end.

import { html } from "./inspector.js";
import { svg } from "./ladder.js";
import { COLOURS, plots, stretch, thinned } from "./plots.js";

const [WIDE, HIGH] = [720, 240];
const BOX = { left: 66, right: WIDE - 8, top: 8, bottom: HIGH - 36 };
const DASHES = ["", "7 3", "2 2", "9 3 2 3", "4 4", "12 4"];
const TICKS = 6;

// The figures of one connection.
export function onPaper(scene, number) {
  const { range } = stretch(scene, number);
  return plots(scene, number).map(({ title, traces, axis, note }) => {
    const shown = traces.filter((trace) => trace.visible !== "legendonly").map((trace) => ({ ...trace, ...thinned(trace, range) }));
    return html("figure", {}, html("figcaption", {}, html("b", {}, title), ` ${note}`), picture(shown, axis, range), legend(shown));
  });
}

function picture(traces, axis, [from, to]) {
  const highest = 1.04 * traces.reduce((most, { y }) => y.reduce((a, b) => Math.max(a, b ?? 0), most), 0) || 1;
  const x = (at) => BOX.left + ((at - from) / (to - from)) * (BOX.right - BOX.left);
  const y = (value) => BOX.bottom - (value / highest) * (BOX.bottom - BOX.top);
  const drawn = svg("svg", { class: "nl-paper", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  for (const at of ticks(from, to)) {
    drawn.append(svg("line", { class: "nl-grid", x1: x(at), x2: x(at), y1: BOX.top, y2: BOX.bottom }));
    drawn.append(svg("text", { x: x(at), y: BOX.bottom + 14, "text-anchor": "middle" }, written(at)));
  }
  for (const value of ticks(0, highest)) {
    drawn.append(svg("line", { class: "nl-grid", x1: BOX.left, x2: BOX.right, y1: y(value), y2: y(value) }));
    drawn.append(svg("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, written(value)));
  }
  drawn.append(svg("text", { x: BOX.right, y: HIGH - 6, "text-anchor": "end" }, "s"));
  drawn.append(svg("text", { x: 12, y: (BOX.top + BOX.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(BOX.top + BOX.bottom) / 2})` }, axis));
  traces.forEach((trace, order) => drawn.append(mark(trace, order, x, y)));
  return drawn;
}

function mark(trace, order, x, y) {
  const stroke = COLOURS.light[order % COLOURS.light.length];
  const steps = trace.line?.shape === "hv";
  let [path, last] = ["", null];
  trace.x.forEach((at, k) => {
    const value = trace.y[k];
    if (at === null || value === null || value === undefined) {
      last = null;
      return;
    }
    const [left, top] = [x(at).toFixed(1), y(value).toFixed(1)];
    if (trace.mode === "markers") path += `M${left - 3} ${top - 3}l6 6m-6 0l6 -6`;
    else path += last === null ? `M${left} ${top}` : steps ? `H${left}V${top}` : `L${left} ${top}`;
    last = at;
  });
  return svg("path", { d: path, fill: "none", stroke, "stroke-width": trace.line?.width ?? 1.2, "stroke-dasharray": trace.mode === "markers" ? "" : DASHES[order % DASHES.length] });
}

function legend(traces) {
  const words = traces.map((trace, order) => {
    const sample = svg("svg", { width: 30, height: 12, "aria-hidden": "true" });
    const far = [0, 24];
    sample.append(mark({ ...trace, x: trace.mode === "markers" ? [12] : far, y: trace.mode === "markers" ? [0] : [0, 0] }, order, (at) => at + 3, () => 6));
    return html("span", {}, sample, ` ${trace.name}`);
  });
  return html("p", { class: "nl-keys" }, ...words);
}

function ticks(from, to) {
  const step = 10 ** Math.floor(Math.log10((to - from) / TICKS));
  const wide = [1, 2, 5, 10].map((m) => m * step).find((v) => (to - from) / v <= TICKS);
  const found = [];
  for (let k = Math.ceil(from / wide); k * wide <= to; k++) found.push(k * wide);
  return found;
}

function written(value) {
  return Number(value.toPrecision(10)).toLocaleString("en", { maximumSignificantDigits: 6 });
}
