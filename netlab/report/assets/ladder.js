// The ladder: one line a capture point, one arrow a packet, joined over all points that saw it.
//
// Only what is in view is drawn. Time runs downwards, evenly (a row a packet) or to scale; where
// more packets are in view than can be told apart, they are drawn as bars of how many there are,
// and a click goes nearer.

import { duration, label, seconds, signs } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const ROW = 34; // pixels of a row, drawn evenly
const TOP = 10;
const CROWD = 500; // packets in view, above which bars are drawn
const TALLEST = 8e6; // pixels; browsers stop at some height

export function svg(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text) node.textContent = text;
  return node;
}

export class Ladder {
  constructor(scene, onSelect) {
    this.scene = scene;
    this.onSelect = onSelect;
    this.rows = [];
    this.selected = -1;
    this.marked = new Set();
    this.scale = "even";
    this.zoom = 1;
    this.element = document.createElement("div");
    this.element.className = "nl-ladder";
    this.head = svg("svg", { class: "nl-lanes", "aria-hidden": "true" });
    this.view = document.createElement("div");
    this.view.className = "nl-scroll";
    this.view.tabIndex = 0;
    this.view.setAttribute("role", "listbox");
    this.view.setAttribute("aria-label", "packets, in the order of time");
    this.room = document.createElement("div");
    this.picture = svg("svg", { class: "nl-picture" });
    this.view.append(this.room, this.picture);
    this.element.append(this.head, this.view);
    this.view.addEventListener("scroll", () => this.later(), { passive: true });
    this.view.addEventListener("keydown", (event) => this.key(event));
    this.picture.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.later()).observe(this.view);
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
  }

  // Show these passages; `lanes` are their columns, as {name, point} (point null: one end of one).
  show(rows, lanes) {
    this.rows = rows;
    this.lanes = lanes;
    this.single = lanes.some((lane) => lane.point === null);
    this.first = rows.length ? this.scene.at[rows[0]] : 0;
    this.last = rows.length ? Math.max(...ends(rows, this.scene.end)) : 0;
    this.longest = rows.reduce((most, i) => Math.max(most, this.scene.end[i] - this.scene.at[i]), 0);
    this.measure();
    this.view.scrollTop = 0;
    this.later();
  }

  measure() {
    const span = Math.max(1, this.last - this.first);
    const even = this.rows.length * ROW + 2 * TOP;
    this.perNs = (Math.min(Math.max(even, 400), 40_000) / span) * this.zoom;
    const height = this.scale === "even" ? even : span * this.perNs + 2 * TOP + ROW;
    if (height > TALLEST) this.perNs *= TALLEST / height;
    this.height = Math.min(height, TALLEST);
    this.room.style.height = `${this.height}px`;
    this.view.style.height = `${Math.min(Math.max(this.height + 4, 120), 640)}px`;
  }

  rescale(scale, zoom) {
    const middle = this.near(this.view.scrollTop + this.view.clientHeight / 2);
    [this.scale, this.zoom] = [scale, zoom];
    this.measure();
    const kept = this.selected >= 0 ? this.rows.indexOf(this.selected) : middle;
    this.view.scrollTop = this.y(Math.max(0, kept)) - this.view.clientHeight / 2;
    this.later();
  }

  y(row, at = this.scene.at[this.rows[row]]) {
    return this.scale === "even" ? TOP + ROW / 2 + row * ROW : TOP + ROW / 2 + (at - this.first) * this.perNs;
  }

  // The row at a height.
  near(y) {
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.y(middle) < y) low = middle + 1;
      else high = middle;
    }
    return Math.min(low, this.rows.length - 1);
  }

  later() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.draw();
    });
  }

  draw(everything = false) {
    const width = Math.max(320, this.view.clientWidth);
    const top = everything ? 0 : this.view.scrollTop;
    const bottom = everything ? this.height : top + this.view.clientHeight;
    this.picture.setAttribute("width", width);
    this.picture.setAttribute("height", bottom - top);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${bottom - top}`); // paper may be narrower
    this.picture.style.top = `${top}px`;
    this.picture.replaceChildren();
    this.gutter = width < 560 ? 62 : 92;
    const margin = width < 560 ? 14 : 30;
    const step = (width - this.gutter - 2 * margin) / Math.max(1, this.lanes.length - 1);
    this.x = this.lanes.map((_, at) => this.gutter + margin + at * step);
    this.place = new Map(this.lanes.map((lane, at) => [lane.point, at]));
    this.drawLanes(width, bottom - top);
    if (!this.rows.length) return;
    const reach = this.scale === "even" ? ROW : this.longest * this.perNs + ROW;
    const from = Math.max(0, this.near(top - reach) - 1);
    let to = from;
    while (to < this.rows.length && this.y(to) < bottom + ROW) to++;
    const drawn = svg("g", { transform: `translate(0 ${-top})` });
    if (to - from > CROWD && !everything) this.drawCrowd(drawn, from, to);
    else this.drawRows(drawn, from, to);
    this.picture.append(drawn);
    const chosen = document.getElementById(this.id(this.selected));
    if (chosen) this.view.setAttribute("aria-activedescendant", chosen.id);
    else this.view.removeAttribute("aria-activedescendant");
  }

  drawLanes(width, height) {
    for (const x of this.x) {
      this.picture.append(svg("line", { class: "nl-lane", x1: x, x2: x, y1: 0, y2: height }));
    }
    this.head.setAttribute("width", width);
    this.head.replaceChildren();
    const last = this.lanes.length - 1;
    const narrow = this.x.length > 1 && this.x[1] - this.x[0] < 190;
    this.lanes.forEach((lane, at) => {
      const anchor = at === 0 ? "start" : at === last ? "end" : "middle";
      const x = at === 0 ? Math.max(4, this.x[0] - 40) : at === last ? width - 8 : this.x[at];
      const y = narrow && at % 2 ? 34 : 16;
      this.head.append(svg("text", { x, y, "text-anchor": anchor }, lane.name));
    });
    const high = narrow && last > 0 ? 42 : 24;
    this.head.setAttribute("height", high);
    this.head.setAttribute("viewBox", `0 0 ${width} ${high}`);
  }

  drawRows(into, from, to) {
    let free = -Infinity;
    for (let row = from; row < to; row++) {
      const p = this.scene.passage(this.rows[row]);
      const y = this.y(row);
      const labelled = this.scale === "even" || y - free >= 26 || p.index === this.selected || this.marked.has(p.index);
      if (labelled) free = y;
      into.append(this.arrow(p, row, y, labelled));
    }
  }

  id(index) {
    return `${this.prefix || "p"}-${index}`;
  }

  arrow(p, row, y, labelled) {
    const kinds = ["nl-packet", p.forward ? "nl-forward" : "nl-backward"];
    if (p.text !== null) kinds.push("nl-other");
    if (p.repeats !== null || p.copy !== null) kinds.push("nl-again");
    if (p.lost >= 0) kinds.push("nl-lost");
    if (p.index === this.selected) kinds.push("nl-selected");
    if (p.index === this.related || p.repeats === this.selected) kinds.push("nl-related");
    const marked = this.marked.has(p.index);
    if (marked) kinds.push("nl-marked");
    const words = `${signs(p)}${label(p)}`;
    const group = svg("g", {
      class: kinds.join(" "), role: "option", id: this.id(p.index), "data-index": p.index,
      "aria-selected": p.index === this.selected, "aria-label": `packet ${p.index + 1}, ${seconds(p.at)} s, ${words}${marked ? ", marked" : ""}`,
    });
    const legs = this.legs(p, y);
    const path = legs.map(([x, at], k) => `${k ? "L" : "M"}${x.toFixed(1)} ${at.toFixed(1)}`).join("");
    const [left, right] = [this.x[0], this.x[this.x.length - 1]];
    group.append(svg("rect", { class: "nl-hit", x: 0, y: y - ROW / 2 + 1, width: right + 40, height: ROW - 2 }));
    if (marked) group.append(svg("rect", { class: "nl-mark", x: 0, y: y - ROW / 2 + 1, width: 5, height: ROW - 2 }));
    group.append(svg("path", { class: "nl-line", d: path }));
    for (const [x, at, cross] of legs.slice(1)) group.append(cross ? crossAt(x, at) : this.tip(p, legs, x, at));
    if (labelled) {
      group.append(svg("text", { class: "nl-time", x: this.gutter - 6, y: y + 4, "text-anchor": "end" }, seconds(p.at)));
      const before = row > 0 ? p.at - this.scene.at[this.rows[row - 1]] : 0;
      if (this.scale === "even" && before >= 1e7) {
        const gap = svg("text", { class: "nl-gap", x: this.gutter - 6, y: y - 9, "text-anchor": "end" });
        gap.textContent = `+${duration(before)}`;
        group.append(gap);
      }
      const room = right - left;
      const text = svg("text", { class: "nl-label", x: (left + right) / 2, y: y - 5, "text-anchor": "middle" });
      text.textContent = fitted(words, room / 6.6);
      group.append(text);
    }
    return group;
  }

  // Where a packet was: (x, y) for each point, and a cross where it was lost.
  legs(p, y) {
    if (this.single) {
      const ends = p.forward ? [this.x[0], this.x[1]] : [this.x[1], this.x[0]];
      return ends.map((x) => [x, y]);
    }
    const found = [];
    p.points.forEach(({ point, at }, k) => {
      if (!this.place.has(point)) return;
      const below = this.scale === "even" ? Math.min(k * 4, 10) : (at - p.at) * this.perNs;
      found.push([this.x[this.place.get(point)], y + below, false]);
    });
    const lane = this.place.get(p.points[p.points.length - 1].point);
    const next = this.nextLane(p, lane);
    const [x, bottom] = found[found.length - 1];
    if (p.lost >= 0) found.push([x + (this.x[next] - x) * 0.6, bottom + 3, true]);
    else if (found.length === 1 && this.x.length > 1) {
      // Seen once: it comes from somewhere between, or goes there.
      const [point] = p.points;
      const arrives = p.conversation.homes[p.forward ? 1 : 0] === point.point;
      const inner = lane === 0 ? 1 : lane - 1;
      const away = x + (this.x[arrives ? inner : next] - x) * 0.4;
      if (arrives) found.unshift([away, bottom, false]);
      else if (next !== lane) found.push([away, bottom, false]);
    }
    return found;
  }

  nextLane(p, lane) {
    const home = this.lanes[0].point === p.conversation.points[0];
    const step = p.forward === home ? 1 : -1;
    return Math.min(Math.max(lane + step, 0), this.lanes.length - 1);
  }

  tip(p, legs, x, y) {
    const [fromX, fromY] = legs[legs.findIndex((leg) => leg[0] === x && leg[1] === y) - 1];
    const angle = (Math.atan2(y - fromY, x - fromX) * 180) / Math.PI;
    return svg("path", { class: "nl-tip", d: "M0 0L-8 -3.5L-8 3.5Z", transform: `translate(${x} ${y}) rotate(${angle})` });
  }

  drawCrowd(into, from, to) {
    const buckets = new Map();
    for (let row = from; row < to; row++) {
      const index = this.rows[row];
      const at = Math.floor(this.y(row) / 4);
      const bucket = buckets.get(at) || [0, 0, 0, 0];
      bucket[this.scene.passages.forward[index] ? 0 : 1]++;
      if (this.scene.passages.lost[index] >= 0 || this.scene.passages.repeats[index] !== null) bucket[2]++;
      if (this.marked.has(index)) bucket[3]++;
      buckets.set(at, bucket);
    }
    const most = Math.max(...[...buckets.values()].map(([a, b]) => Math.max(a, b)));
    const middle = (this.x[0] + this.x[this.x.length - 1]) / 2;
    const wide = (this.x[this.x.length - 1] - this.x[0]) / 2 - 4;
    for (const [at, [there, back, odd, marked]] of buckets) {
      const one = { y: at * 4, height: 3 };
      into.append(svg("rect", { class: "nl-bar nl-forward", x: middle, width: (wide * there) / most, ...one }));
      const left = (wide * back) / most;
      into.append(svg("rect", { class: "nl-bar nl-backward", x: middle - left, width: left, ...one }));
      if (odd) into.append(svg("rect", { class: "nl-bar nl-lost", x: middle - 2, width: 4, ...one }));
      if (marked) into.append(svg("rect", { class: "nl-mark", x: 0, width: 5, ...one }));
    }
    const note = `${(to - from).toLocaleString("en")} packets in view, up to ${most} a bar: click to go nearer`;
    into.append(svg("text", { class: "nl-note", x: middle, y: this.view.scrollTop + 16, "text-anchor": "middle" }, note));
  }

  click(event) {
    const group = event.target.closest("[data-index]");
    if (group) {
      this.choose(Number(group.dataset.index));
      return;
    }
    const y = event.clientY - this.picture.getBoundingClientRect().top + this.view.scrollTop;
    if (this.rows.length) this.onSelect(this.rows[this.near(y)], "nearer");
  }

  key(event) {
    const at = this.rows.indexOf(this.selected);
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 1);
    const next = {
      ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, Home: 0, End: this.rows.length - 1, PageDown: at + page, PageUp: at - page,
    }[event.key];
    if (next === undefined || !this.rows.length) return;
    event.preventDefault();
    this.choose(this.rows[Math.min(Math.max(next, 0), this.rows.length - 1)]);
  }

  choose(index) {
    this.select(index);
    this.onSelect(index, "chosen");
  }

  select(index) {
    this.selected = index;
    this.related = this.scene.passages.repeats[index] ?? -1;
    const row = this.rows.indexOf(index);
    if (row >= 0) {
      const y = this.y(row);
      const { scrollTop, clientHeight } = this.view;
      if (y < scrollTop + ROW || y > scrollTop + clientHeight - ROW) this.view.scrollTop = y - clientHeight / 3;
    }
    this.later();
  }

  print(on) {
    if (this.rows.length > 400 || this.scale !== "even") return;
    this.view.style.height = on ? "auto" : "";
    if (!on) this.measure();
    this.draw(on);
  }
}

function ends(rows, column) {
  // The last packets decide, but a delayed one may end later than those after it.
  return rows.slice(-2000).map((i) => column[i]);
}

function crossAt(x, y) {
  return svg("path", { class: "nl-cross", d: `M${x - 5} ${y - 5}L${x + 5} ${y + 5}M${x + 5} ${y - 5}L${x - 5} ${y + 5}` });
}

// A label for so many letters: first without the window, which seldom changes.
function fitted(words, most) {
  const text = words.length > most ? words.replace(/ win=\d+/, "") : words;
  return text.length > most ? `${text.slice(0, Math.max(3, Math.floor(most) - 1))}…` : text;
}
