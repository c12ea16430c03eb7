// The states of both ends over time, and the state machine of RFC 9293 with the way they took.

import { html } from "./inspector.js";
import { svg } from "./ladder.js";
import { duration, seconds } from "./words.js";

const PLACES = {
  CLOSED: [230, 22], LISTEN: [230, 78], "SYN-RECEIVED": [86, 138], "SYN-SENT": [374, 138],
  ESTABLISHED: [230, 196], "FIN-WAIT-1": [86, 256], CLOSING: [230, 300], "CLOSE-WAIT": [374, 256],
  "FIN-WAIT-2": [86, 356], "TIME-WAIT": [230, 376], "LAST-ACK": [374, 330], END: [374, 402],
};
const EDGES = [
  ["CLOSED", "LISTEN"], ["CLOSED", "SYN-SENT"], ["LISTEN", "SYN-RECEIVED"], ["LISTEN", "SYN-SENT"],
  ["SYN-SENT", "SYN-RECEIVED"], ["SYN-RECEIVED", "ESTABLISHED"], ["SYN-SENT", "ESTABLISHED"],
  ["SYN-RECEIVED", "FIN-WAIT-1"], ["ESTABLISHED", "FIN-WAIT-1"], ["ESTABLISHED", "CLOSE-WAIT"],
  ["FIN-WAIT-1", "FIN-WAIT-2"], ["FIN-WAIT-1", "CLOSING"], ["CLOSE-WAIT", "LAST-ACK"],
  ["FIN-WAIT-2", "TIME-WAIT"], ["CLOSING", "TIME-WAIT"], ["LAST-ACK", "END"], ["TIME-WAIT", "END"],
];
const EARLY = new Set(["LISTEN", "SYN-SENT", "SYN-RECEIVED"]); // their way to CLOSED leads back to the top
const HALF = [56, 14];
const MEANINGS = {
  CLOSED: "There is no connection, or none any more: the kernel keeps nothing of it.",
  LISTEN: "A program waits for connections to this port.",
  "SYN-SENT": "The SYN is out and not answered yet; it is repeated with growing pauses.",
  "SYN-RECEIVED": "A SYN came and was answered with SYN-ACK; the last ACK of the handshake is awaited.",
  ESTABLISHED: "Both directions are open.",
  "FIN-WAIT-1": "The program closed first and the FIN is out, not acknowledged yet.",
  "FIN-WAIT-2": "The FIN is acknowledged; the other side may go on sending until its own FIN.",
  CLOSING: "Both closed at once: a FIN came before this side's own was acknowledged.",
  "TIME-WAIT": "All is said. The pair of ports is kept for a while, so that a FIN sent again is answered and no late segment meets a new connection.",
  "CLOSE-WAIT": "The other side has closed; the program here has not closed yet.",
  "LAST-ACK": "Both have closed; only the acknowledgment of this side's FIN is missing.",
};

// The states of one connection, and which of them hold at the packet chosen.
export class States {
  constructor(scene, onTime) {
    this.scene = scene;
    this.onTime = onTime;
    this.element = html("div");
  }

  show(number) {
    const history = this.scene.history(number);
    const none = number === null ? "Choose one connection to see its states." : "Nothing was recorded of the states of this connection.";
    this.element.replaceChildren(history ? states(history, this.onTime) : html("p", { class: "nl-hint" }, none));
  }

  // Mark the states that hold once this packet has arrived.
  now(index) {
    for (const one of this.element.querySelectorAll(".nl-now")) one.classList.remove("nl-now");
    for (const { name, after } of this.scene.step(index) ?? []) {
      const figure = [...this.element.querySelectorAll("figure")].find((one) => one.dataset.end === name);
      const nodes = figure ? [...figure.querySelectorAll(`[data-state="${after}"]`)] : [];
      (nodes.find((one) => one.classList.contains("nl-seen")) ?? nodes[0])?.classList.add("nl-now");
    }
  }
}

function states(history, onTime) {
  const box = html("div", { class: "nl-states" });
  if (history.illegal.length) {
    box.append(html("ul", { class: "nl-illegal" }, ...history.illegal.map((text) => html("li", {}, `against RFC 9293: ${text}`))));
  }
  box.append(timeline(history, onTime));
  const machines = html("div", { class: "nl-machines" });
  for (const { name } of history.endpoints) {
    const taken = history.transitions.filter((t) => t.endpoint === name);
    const list = html("ol", {}, ...taken.map((t) => html("li", {},
      html("button", { type: "button", class: "nl-link", onclick: () => onTime(t.at) }, `${t.before} → ${t.after}`),
      ` ${t.event ?? "without a cause in the table"}, ${seconds(t.at)} s`)));
    const said = html("p", { class: "nl-said", role: "status" }, "Choose a state.");
    machines.append(html("figure", { "data-end": name }, html("figcaption", {}, html("b", {}, name)), machine(name, taken, history, said), said, list));
  }
  box.append(machines);
  return box;
}

function timeline(history, onTime) {
  const times = history.transitions.map((t) => t.at);
  if (!times.length) return html("p", { class: "nl-hint" }, "No change of state was seen.");
  const pad = Math.max(1e6, (Math.max(...times) - Math.min(...times)) * 0.06);
  const [from, to] = [Math.min(...times) - pad, Math.max(...times) + pad];
  const rows = html("div", { class: "nl-timeline", role: "table", "aria-label": "states over time" });
  for (const { name } of history.endpoints) {
    const line = html("div", { class: "nl-spans", role: "row" });
    for (const span of history.spans.filter((s) => s.endpoint === name)) {
      const [start, end] = [Math.max(span.from ?? from, from), Math.min(span.to ?? to, to)];
      const share = (100 * (end - start)) / (to - from);
      const title = `${span.state} ${span.from === null ? "from before" : `from ${seconds(span.from)} s`}` +
        `${span.from !== null && span.to !== null ? `, for ${duration(span.to - span.from)}` : ""}${span.evidence ? ` (${span.evidence})` : ""}`;
      const part = html("button", { type: "button", role: "cell", title, "aria-label": title, class: `nl-span nl-state-${span.state.toLowerCase()}`, onclick: () => onTime(span.from ?? from) }, span.state);
      part.style.flexGrow = Math.max(share, 0.5);
      part.style.flexBasis = "0";
      line.append(part);
    }
    rows.append(html("div", { class: "nl-lifeline" }, html("b", { role: "rowheader" }, name), line));
  }
  rows.append(html("p", { class: "nl-hint" }, `${seconds(from, 3)} s to ${seconds(to, 3)} s; the widths are to scale, very short states are drawn wider.`));
  return rows;
}

function machine(name, taken, history, said) {
  const picture = svg("svg", { class: "nl-machine", viewBox: "0 0 460 424", role: "group" });
  const seen = new Map();
  const first = history.spans.find((s) => s.endpoint === name);
  if (first) seen.set(first.state === "CLOSED" ? "CLOSED" : first.state, 0);
  const steps = new Map();
  let last = first ? first.state : "";
  taken.forEach((t, at) => {
    const start = t.before === "CLOSED" && at === 0 ? "CLOSED" : t.before === "CLOSED" ? "END" : t.before;
    const end = t.after === "CLOSED" && !EARLY.has(t.before) ? "END" : t.after;
    seen.set(start, at);
    seen.set(end, at + 1);
    const key = `${start}>${end}`;
    steps.set(key, [...(steps.get(key) || []), at + 1]);
    last = t.after;
  });
  picture.setAttribute("aria-label", `state machine; ${name} ended in ${last}`);
  const all = EDGES.map(([a, b]) => `${a}>${b}`);
  for (const key of [...all, ...[...steps.keys()].filter((k) => !all.includes(k))]) {
    const [a, b] = key.split(">");
    const numbers = steps.get(key);
    const way = all.includes(key) ? straight(PLACES[a], PLACES[b]) : around(PLACES[a], PLACES[b]);
    picture.append(edge(way, numbers ? "nl-edge nl-taken" : "nl-edge"));
    if (numbers) picture.append(number(way, numbers.join(",")));
  }
  for (const state in PLACES) {
    const [x, y] = PLACES[state];
    const word = state === "END" ? "CLOSED" : state;
    const group = svg("g", { class: seen.has(state) ? "nl-node nl-seen" : "nl-node", "data-state": word, role: "button", tabindex: 0 });
    group.setAttribute("aria-label", `${word}${seen.has(state) ? ", was reached" : ""}`);
    const tell = () => { said.textContent = describe(state, name, history); };
    group.addEventListener("click", tell);
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      tell();
    });
    group.append(svg("rect", { x: x - HALF[0], y: y - HALF[1], width: 2 * HALF[0], height: 2 * HALF[1], rx: 6 }));
    group.append(svg("text", { x, y: y + 4, "text-anchor": "middle" }, word));
    picture.append(group);
  }
  return picture;
}

// What a state means, how long this end was in it, and where it leads.
function describe(state, name, history) {
  const word = state === "END" ? "CLOSED" : state;
  const parts = [`${word}: ${MEANINGS[word]}`];
  const known = history.spans.filter((s) => s.endpoint === name && s.state === word);
  if (state !== "END" && state !== "CLOSED") {
    parts.push(known.length ? `${name} was in it ${known.map(stay).join(" and ")}.` : `${name} was not in it.`);
  }
  const next = EDGES.filter(([from]) => from === state).map(([, to]) => (to === "END" ? "CLOSED" : to));
  if (next.length) parts.push(`It leads to ${next.join(", ")} (RFC 9293 §3.3.2).`);
  return parts.join(" ");
}

function stay({ from, to }) {
  if (from === null) return to === null ? "all the time" : `until ${seconds(to)} s`;
  return to === null ? `from ${seconds(from)} s on` : `for ${duration(to - from)} from ${seconds(from)} s on`;
}

function border([x, y], [tx, ty]) {
  const [dx, dy] = [tx - x, ty - y];
  const share = Math.min(Math.abs(HALF[0] / (dx || 1e-9)), Math.abs(HALF[1] / (dy || 1e-9)));
  return [x + dx * share, y + dy * share];
}

// A way as the four points of a cubic Bézier curve.
function straight(a, b) {
  const [from, to] = [border(a, b), border(b, a)];
  return [from, from, to, to];
}

// A way that the figure has no arrow for, such as a reset: in a bow beside the states between.
function around([x, y], [tx, ty]) {
  const out = x < 200 ? -1 : 1;
  const inward = tx > x + HALF[0] ? -1 : 1;
  const [from, to] = [[x + out * HALF[0], y], [tx + (x === tx ? out : inward) * HALF[0], ty]];
  if (x === tx) return [from, [from[0] + 28, y], [to[0] + 28, ty], to];
  if (out < 0) return [from, [2, ty], [(from[0] + to[0]) / 2, ty + (ty > y ? 20 : 0)], to];
  return [from, [from[0] + (inward < 0 ? 16 : 30), (y + ty) / 2], [to[0] + inward * 40, ty], to];
}

const at = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function edge([from, one, other, to], kind) {
  const back = other === to ? from : other;
  const angle = Math.atan2(to[1] - back[1], to[0] - back[0]);
  const wing = (turn) => at([to[0] - 8 * Math.cos(angle + turn), to[1] - 8 * Math.sin(angle + turn)]);
  return svg("path", { class: kind, d: `M${at(from)}C${at(one)} ${at(other)} ${at(to)}M${wing(0.4)}L${at(to)}L${wing(-0.4)}` });
}

function number(way, text) {
  const group = svg("g", { class: "nl-step" });
  const [x, y] = [0, 1].map((k) => (way[0][k] + 3 * way[1][k] + 3 * way[2][k] + way[3][k]) / 8);
  group.append(svg("circle", { cx: x, cy: y, r: 8 + 2 * (text.length - 1) }), svg("text", { x, y: y + 4, "text-anchor": "middle" }, text));
  return group;
}
