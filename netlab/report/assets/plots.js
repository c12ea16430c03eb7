// Plots of one connection over time, drawn by Plotly: what the samples and the packets say.

import { html } from "./inspector.js";

const SEC = 1e9;

// What can be plotted of a scene: [title, traces, axis title, note], nothing for what is not there.
export function plots(scene, number) {
  const conversation = scene.conversations.find((c) => c.number === number);
  if (!conversation) return [];
  const rows = scene.of(number).filter((i) => scene.passages.conversation[i] === number);
  const samples = scene.samples ?? [];
  const own = samples.filter((s) => same(s.ports, conversation.ports));
  const found = [...sequence(scene, rows), ...windows(scene, rows, own), ...times(scene, rows, own)];
  found.push(...rates(scene, rows, conversation), ...inside(scene));
  return found.filter((plot) => plot.traces.length);
}

function same(a, b) {
  return (a[0] === b[0] && a[1] === b[1]) || (a[0] === b[1] && a[1] === b[0]);
}

const POINTS = 3000; // of one line: what has more in view is drawn as the least and the most of slices of time

// What to draw of a line in a stretch of time, and half of it beside: points, or slices of them.
export function thinned({ x, y, customdata = [] }, [from, to]) {
  const near = (to - from) / 2;
  const within = [];
  for (let i = 0; i < x.length; i++) {
    const at = x[i] ?? x[i - 1]; // a gap belongs to the point before
    if (at >= from - near && at <= to + near) within.push(i);
  }
  if (x.length <= POINTS) return { x, y, customdata };
  if (within.length <= POINTS) return { x: within.map((i) => x[i]), y: within.map((i) => y[i]), customdata: within.map((i) => customdata[i]) };
  const wide = (2 * (to - from)) / (POINTS / 4);
  const slices = new Map();
  let bars = false;
  for (const i of within) {
    if (y[i] === null) {
      bars = true;
      continue;
    }
    const slot = Math.floor((x[i] - from + near) / wide);
    const one = slices.get(slot);
    if (!one) slices.set(slot, [i, i]);
    else if (y[i] < y[one[0]]) one[0] = i;
    else if (y[i] > y[one[1]]) one[1] = i;
  }
  const kept = { x: [], y: [], customdata: [] };
  for (const pair of slices.values()) {
    const [a, b] = bars || pair[0] < pair[1] ? pair : [pair[1], pair[0]];
    kept.x.push(x[a], bars ? x[a] : x[b]);
    kept.y.push(y[a], y[b]);
    kept.customdata.push(customdata[a], customdata[b]);
    if (!bars) continue;
    for (const name in kept) kept[name].push(null);
  }
  return kept;
}

function line(name, x, y, more = {}) {
  return { name, x, y, type: "scatter", mode: "lines", ...more, line: { width: 1.5, ...more.line } };
}

function dots(name, x, y, more = {}) {
  return { name, x, y, type: "scatter", mode: "markers", ...more, marker: { size: 5, ...more.marker } };
}

// Time-sequence as tcptrace draws it: each segment a bar from its first number to its last, the
// acknowledgments below it, the window above.
function sequence(scene, rows) {
  const columns = scene.passages;
  const octets = [0, 0];
  for (const i of rows) octets[columns.forward[i]] += columns.length[i];
  if (octets[0] + octets[1] === 0) return [];
  const sender = octets[1] >= octets[0] ? 1 : 0;
  const [x, y, againX, againY, lostX, lostY, ackX, ackY, edgeY, sackX, sackY] = Array.from({ length: 11 }, () => []);
  const index = [];
  for (const i of rows) {
    const at = scene.at[i] / SEC;
    if (columns.text[i] !== null) continue;
    if (columns.forward[i] === sender) {
      if (!columns.length[i]) continue;
      const again = columns.repeats[i] !== null;
      (again ? againX : x).push(at, at, null);
      (again ? againY : y).push(columns.seq[i], columns.seq[i] + columns.length[i], null);
      if (!again) index.push(i, i, i);
      if (columns.lost[i] >= 0) {
        lostX.push(at);
        lostY.push(columns.seq[i] + columns.length[i]);
      }
    } else if (columns.flags[i] & 0x10) {
      ackX.push(at);
      ackY.push(columns.ack[i]);
      edgeY.push(columns.ack[i] + columns.window[i]);
      for (let k = 0; columns.sack[i] && k < columns.sack[i].length; k += 2) {
        sackX.push(at, at, null);
        sackY.push(columns.sack[i][k], columns.sack[i][k + 1], null);
      }
    }
  }
  const step = { line: { shape: "hv", width: 1.2 } };
  const traces = [line("data", x, y, { customdata: index }), line("acknowledged", ackX, ackY, step)];
  if (againX.length) traces.push(line("again", againX, againY, { line: { width: 3 } }));
  if (lostX.length) traces.push(dots("lost", lostX, lostY, { marker: { symbol: "x", size: 8 } }));
  if (sackX.length) traces.push(line("SACK", sackX, sackY, { line: { width: 2 } }));
  traces.push(line("window", ackX, edgeY, { ...step, visible: "legendonly" }));
  const who = sender ? "opener" : "answerer";
  return [{ title: "Sequence numbers over time", axis: "number", traces, note: `What the ${who} sent, as tcptrace draws it; click the legend for the window's edge.` }];
}

function windows(scene, rows, samples) {
  const traces = [];
  const columns = scene.passages;
  const [x, y] = [[], []];
  for (const i of rows) {
    if (columns.flight[i] !== null) {
      x.push(scene.at[i] / SEC);
      y.push(columns.flight[i]);
    }
  }
  if (x.length > 1) traces.push(line("in flight (capture)", x, y, { line: { shape: "hv", width: 1 } }));
  for (const s of samples) {
    const at = s.at.map((ns) => ns / SEC);
    const mss = s.figures.snd_mss;
    for (const [key, name] of [["snd_cwnd", "cwnd"], ["snd_ssthresh", "ssthresh"], ["unacked", "unacknowledged"]]) {
      if (!s.figures[key] || !mss) continue;
      const octets = s.figures[key].map((v, k) => (v === null || v > 1e6 ? null : v * mss[k]));
      if (octets.some((v) => v)) traces.push(line(`${name}, ${s.node}`, at, octets, { line: { shape: "hv" }, visible: key === "unacked" ? "legendonly" : true }));
    }
    if (s.figures.snd_wnd) traces.push(line(`peer's window, ${s.node}`, at, s.figures.snd_wnd, { visible: "legendonly" }));
  }
  return [{ title: "Windows and what is in flight", axis: "octets", traces, note: "cwnd and ssthresh of the kernel's tcp_info, times the segment size; in flight as the capture shows it." }];
}

function times(scene, rows, samples) {
  const columns = scene.passages;
  const traces = [];
  for (const forward of [1, 0]) {
    const [x, y] = [[], []];
    for (const i of rows) {
      if (columns.rtt[i] !== null && columns.forward[i] !== forward) {
        x.push(scene.at[i] / SEC);
        y.push(columns.rtt[i] / 1e6);
      }
    }
    if (x.length) traces.push(dots(`${forward ? "opener" : "answerer"}'s data, acknowledged`, x, y));
  }
  for (const s of samples) {
    const at = s.at.map((ns) => ns / SEC);
    for (const [key, name] of [["rtt", "smoothed RTT"], ["rto", "RTO"]]) {
      const values = (s.figures[key] || []).map((v) => (v === null ? null : v / 1000));
      if (values.some((v) => v)) traces.push(line(`${name}, ${s.node}`, at, values, { line: { shape: "hv" }, visible: key === "rto" ? "legendonly" : true }));
    }
  }
  return [{ title: "Round trip times", axis: "ms", traces, note: "Points: from data to its acknowledgment, in the capture. Lines: what the kernel reckons with." }];
}

function rates(scene, rows, conversation) {
  if (rows.length < 20) return [];
  const [from, to] = [scene.at[rows[0]], scene.at[rows[rows.length - 1]]];
  const bin = niceBin((to - from) / 120);
  const traces = [];
  const columns = scene.passages;
  for (const forward of [1, 0]) {
    const all = new Map();
    const fresh = new Map();
    for (const i of rows) {
      if (columns.forward[i] !== forward || !columns.length[i]) continue;
      const slot = Math.floor((scene.at[i] - from) / bin);
      all.set(slot, (all.get(slot) || 0) + columns.length[i]);
      if (columns.repeats[i] === null && columns.copy[i] === null) fresh.set(slot, (fresh.get(slot) || 0) + columns.length[i]);
    }
    if (!all.size) continue;
    const last = Math.floor((to - from) / bin);
    const x = Array.from({ length: last + 1 }, (_, k) => (from + k * bin) / SEC);
    const scale = 8e3 / bin; // octets in a bin → Mbit/s
    const name = forward ? conversation.opener : conversation.answerer;
    const values = (map) => x.map((_, k) => (map.get(k) || 0) * scale);
    traces.push(line(`${name}: all data`, x, values(all), { line: { shape: "hv", width: 1.5 } }));
    if ([...all.values()].reduce((a, b) => a + b, 0) !== [...fresh.values()].reduce((a, b) => a + b, 0)) {
      traces.push(line(`${name}: without repeats`, x, values(fresh), { line: { shape: "hv", width: 1.5, dash: "dot" } }));
    }
  }
  const unit = bin >= 1e9 ? `${bin / 1e9} s` : bin >= 1e6 ? `${bin / 1e6} ms` : `${bin / 1e3} µs`;
  return [{ title: "Throughput and goodput", axis: "Mbit/s", traces, note: `Payload in bins of ${unit}, at the first point that saw it; dotted: without what was sent again.` }];
}

function niceBin(ns) {
  const power = 10 ** Math.floor(Math.log10(Math.max(ns, 1000)));
  return [1, 2, 5, 10].map((m) => m * power).find((v) => v >= ns) ?? 10 * power;
}

function inside(scene) {
  const traces = [];
  for (const wire of scene.fates ?? []) {
    if (wire.inside.length > 1) {
      traces.push(line(`inside ${wire.link}`, wire.inside.map(([at]) => at / SEC), wire.inside.map(([, n]) => n), { line: { shape: "hv", width: 1 } }));
    }
    const words = [...new Set(wire.drops.map((d) => d[1]))];
    for (const word of words) {
      const these = wire.drops.filter((d) => d[1] === word);
      traces.push(dots(`dropped: ${word}`, these.map((d) => d[0] / SEC), these.map(() => 0), { marker: { symbol: "x", size: 8 } }));
    }
  }
  return [{ title: "Packets inside the links", axis: "packets", traces, note: "From the journals of the wires: packets that wait or travel, and those that were dropped." }];
}

export const COLOURS = {
  light: ["#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#718096", "#b7791f", "#2c7a7b"],
  dark: ["#7db4ee", "#f0a272", "#68d391", "#f687b3", "#b794f4", "#a0aec0", "#ecc94b", "#4fd1c5"],
};

export function layout(axis, marks, range) {
  const style = getComputedStyle(document.querySelector(".nl") ?? document.body);
  const [ink, faint, paper] = ["--ink", "--rule", "--paper"].map((name) => style.getPropertyValue(name).trim());
  const ruled = { gridcolor: faint, zerolinecolor: faint, linecolor: faint, automargin: true };
  return {
    height: 300, margin: { l: 56, r: 12, t: 8, b: 40 }, paper_bgcolor: paper, plot_bgcolor: paper,
    font: { color: ink, family: "inherit", size: 12 }, hovermode: "closest", dragmode: "zoom",
    colorway: COLOURS[style.colorScheme === "dark" ? "dark" : "light"],
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left" },
    xaxis: { title: { text: "s" }, range: [...range], ...ruled }, yaxis: { title: { text: axis }, rangemode: "tozero", ...ruled },
    shapes: marks.map((m) => ({ type: "line", x0: m.at / SEC, x1: m.at / SEC, yref: "paper", y0: 0, y1: 1, line: { width: 1, dash: "dot", color: faint } })),
  };
}

// From when to when a connection was seen, in nanoseconds, and what of that is drawn, in seconds.
export function stretch(scene, number) {
  const rows = scene.of(number);
  const [from, to] = [scene.at[rows[0]], Math.max(...rows.slice(-500).map((i) => scene.end[i]))];
  const pad = Math.max(1e6, (to - from) * 0.02);
  return { from, to, range: [(from - pad) / SEC, (to + pad) / SEC] };
}

export async function draw(Plotly, scene, number, into, onPacket) {
  const { from, to, range } = stretch(scene, number);
  const marks = (scene.marks ?? []).filter((m) => m.kind === "phase" && m.at >= from && m.at <= to);
  const found = plots(scene, number);
  if (!found.length) into.append(html("p", { class: "nl-hint" }, "There is nothing to plot here."));
  const places = [];
  for (const { title, traces, axis, note } of found) {
    const place = html("div", { class: "nl-plot", role: "img", "aria-label": `${title}: ${traces.map((t) => t.name).join(", ")}` });
    into.append(html("figure", {}, html("figcaption", {}, html("b", {}, title), ` ${note}`), place));
    const shown = traces.map((trace) => ({ ...trace, ...thinned(trace, range) }));
    Plotly.newPlot(place, shown, layout(axis, marks, range), { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
    place.on("plotly_click", ({ points }) => {
      const index = points[0].customdata;
      onPacket(index ?? nearest(scene, number, points[0].x * SEC));
    });
    place.on("plotly_relayout", (change) => together(Plotly, places, place, change, range));
    place.full = traces;
    places.push(place);
    await new Promise(requestAnimationFrame); // the page stays quick while many are drawn
    if (!place.isConnected) return;
  }
}

function refine(Plotly, place) {
  const range = place.layout.xaxis.range;
  place.full.forEach((trace, at) => {
    if (trace.x.length <= POINTS) return;
    const { x, y, customdata } = thinned(trace, range);
    Plotly.restyle(place, { x: [x], y: [y], customdata: [customdata] }, [at]);
  });
}

// All plots of a connection show the same stretch of time.
function together(Plotly, places, moved, change, whole) {
  const back = change["xaxis.autorange"];
  const range = back ? whole : change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  if (range[0] === undefined) return;
  for (const place of places) {
    const [left, right] = place.layout.xaxis.range;
    if ((back || place !== moved) && (left !== range[0] || right !== range[1])) {
      Plotly.relayout(place, { "xaxis.range": [...range] });
    }
  }
  refine(Plotly, moved);
}

function nearest(scene, number, at) {
  let best = -1;
  for (const i of scene.of(number)) if (best < 0 || Math.abs(scene.at[i] - at) < Math.abs(scene.at[best] - at)) best = i;
  return best;
}
