// One scene with its ladder and inspector, and what chooses among its packets.
//
// `render` is what a notebook calls (the module is a widget of anywidget), `View` what a page uses.

import { Inspector, html } from "./inspector.js";
import { Ladder } from "./ladder.js";
import { States } from "./states.js";
import { Scene } from "./store.js";
import { ACK, FIN, RST, SYN, duration } from "./words.js";

const SHOWN = {
  all: ["every packet", () => true],
  marked: ["marked", (s, i, marked) => marked.has(i)],
  data: ["with data", (s, i) => s.passages.length[i] > 0],
  control: ["SYN, FIN, RST", (s, i) => s.passages.flags[i] & (SYN | FIN | RST)],
  trouble: ["lost, repeated, odd", (s, i) => s.passages.lost[i] >= 0 || s.passages.repeats[i] !== null || s.passages.copy[i] !== null || s.passages.analysis[i] || s.passages.text[i]],
};

let views = 0;

export class View {
  constructor(scene) {
    this.scene = scene;
    this.listeners = [];
    this.ladder = new Ladder(scene, (index, how) => this.select(index, how));
    this.ladder.prefix = `nl${++views}`;
    this.inspector = new Inspector(scene, (index, how) => this.select(index, how));
    this.count = html("span", { class: "nl-count", role: "status" });
    this.marks = html("div", { class: "nl-marks", role: "status", hidden: true });
    this.element = html("div", { class: "nl-view" }, this.bar(), this.marks, html("div", { class: "nl-two" }, this.ladder.element, this.inspector.element));
    this.refresh();
  }

  bar() {
    const conversations = this.scene.conversations.filter((c) => c.about === null);
    this.conversation = html("select", { "aria-label": "connection" });
    if (conversations.length > 1) this.conversation.append(html("option", { value: "" }, `all ${conversations.length} connections`));
    for (const c of conversations.slice(0, 2000)) {
      this.conversation.append(html("option", { value: c.number }, `${c.protocol} ${c.opener} → ${c.answerer} (${c.count})`));
    }
    if (conversations.length) this.conversation.value = conversations[0].number;
    this.shown = html("select", { "aria-label": "which packets" });
    for (const key in SHOWN) this.shown.append(html("option", { value: key, hidden: key === "marked" }, SHOWN[key][0]));
    this.scaled = html("input", { type: "checkbox" });
    this.zoom = html("input", { type: "range", min: -3, max: 9, step: 0.1, value: 0, "aria-label": "zoom of the time axis", disabled: true });
    for (const one of [this.conversation, this.shown]) one.addEventListener("change", () => this.changed());
    this.scaled.addEventListener("change", () => this.rescale());
    this.zoom.addEventListener("input", () => this.rescale());
    const step = (text, title, by) => html("button", { type: "button", title, "aria-label": title, onclick: () => this.step(by) }, text);
    return html("div", { class: "nl-bar-top", role: "toolbar", "aria-label": "packets" },
      this.conversation, this.shown, step("◀", "the packet before", -1), step("▶", "the next packet", 1),
      html("label", {}, this.scaled, " time to scale"), this.zoom, this.count);
  }

  changed() {
    this.refresh();
    if (!this.rows.includes(this.ladder.selected)) {
      this.ladder.selected = -1;
      this.step(1);
    }
  }

  refresh() {
    const number = this.conversation.value === "" ? null : Number(this.conversation.value);
    const wanted = SHOWN[this.shown.value][1];
    const all = this.scene.of(number);
    this.rows = all.filter((i) => wanted(this.scene, i, this.ladder.marked));
    this.ladder.show(this.rows, this.lanes(number));
    const few = this.rows.length === all.length ? "" : ` of ${all.length.toLocaleString("en")}`;
    this.count.textContent = `${this.rows.length.toLocaleString("en")}${few} ${all.length === 1 ? "packet" : "packets"}`;
    const span = this.rows.length ? this.scene.at[this.rows[this.rows.length - 1]] - this.scene.at[this.rows[0]] : 0;
    if (span) this.count.textContent += ` in ${duration(span)}`;
    for (const tell of this.listeners) tell("conversation", number);
  }

  // A line for each point that saw the connection; the two ends, where there is only one point.
  lanes(number) {
    const { conversations, points } = this.scene;
    const one = number === null ? conversations.reduce((a, b) => (b.points.length > a.points.length ? b : a), conversations[0]) : conversations.find((c) => c.number === number);
    if (!one) return [{ name: "", point: null }, { name: "", point: null }];
    if (one.points.length < 2) {
      return number === null && conversations.length > 1
        ? [{ name: "opening side", point: null }, { name: "other side", point: null }]
        : [{ name: one.opener, point: null }, { name: one.answerer, point: null }];
    }
    return one.points.map((point) => ({ name: points[point], point }));
  }

  rescale() {
    this.zoom.disabled = !this.scaled.checked;
    this.ladder.rescale(this.scaled.checked ? "time" : "even", 2 ** Number(this.zoom.value));
  }

  step(by) {
    const at = this.rows.indexOf(this.ladder.selected);
    const next = Math.min(Math.max(at + by, 0), this.rows.length - 1);
    if (this.rows.length) this.select(this.rows[next], "chosen");
  }

  // Mark packets and go to the first of them; `words` say why.
  mark(indices, words) {
    this.ladder.marked = new Set(indices);
    const option = this.shown.querySelector("[value=marked]");
    option.hidden = !indices.length;
    this.marks.hidden = !indices.length;
    if (indices.length) {
      const button = (text, title, onclick) => html("button", { type: "button", title, "aria-label": title, onclick }, text);
      this.place = html("span", { class: "nl-count" });
      this.marks.replaceChildren(html("span", { class: "nl-why" }, words), " ",
        button("◀", "the marked packet before", () => this.walk(-1)), button("▶", "the next marked packet", () => this.walk(1)),
        this.place, button("✕", "unmark", () => this.mark([], "")));
      this.conversation.value = this.common(indices);
      if (this.conversation.selectedIndex < 0) this.conversation.selectedIndex = 0;
    }
    this.shown.value = "all";
    this.refresh();
    if (indices.length) this.select(indices[0], "chosen");
    else if (this.ladder.selected >= 0) this.ladder.select(this.ladder.selected);
  }

  // The conversation that all of these packets belong to, or are about; "" for several.
  common(indices) {
    const { conversations, passages } = this.scene;
    const found = new Set(indices.map((i) => passages.conversation[i]));
    const numbers = new Set(conversations.filter((c) => found.has(c.number)).map((c) => c.about ?? c.number));
    return numbers.size === 1 ? [...numbers][0] : "";
  }

  // To the next marked packet, or the one before.
  walk(by) {
    const marked = [...this.ladder.marked];
    const at = this.ladder.selected;
    const next = by > 0 ? marked.find((i) => i > at) : marked.findLast((i) => i < at);
    if (next !== undefined) this.select(next, "chosen");
  }

  tellPlace(index) {
    if (!this.ladder.marked.size) return;
    const marked = [...this.ladder.marked];
    const at = marked.indexOf(index);
    const many = marked.length.toLocaleString("en");
    this.place.textContent = at < 0 ? `${many} marked` : `${(at + 1).toLocaleString("en")} of ${many}`;
  }

  // The packet shown that leaves or arrives at a time; else the first after it, or the last.
  near(at) {
    const { scene, rows } = this;
    const same = (time) => Math.abs(time - at) <= 1000;
    return rows.find((i) => same(scene.end[i]) || same(scene.at[i])) ?? rows.find((i) => scene.at[i] >= at) ?? rows[rows.length - 1];
  }

  select(index, how) {
    if (how === "nearer") {
      this.ladder.selected = index;
      if (this.scaled.checked) this.zoom.value = Number(this.zoom.value) + 2;
      this.rescale();
    }
    if (!this.rows.includes(index)) {
      this.shown.value = "all";
      this.refresh();
    }
    this.ladder.select(index);
    this.inspector.show(index);
    this.tellPlace(index);
    for (const tell of this.listeners) tell("packet", index);
  }
}

// For notebooks: `data`, `shared` and `octets` are traits of the widget.
export function render({ model, el }) {
  const octets = new Uint8Array(model.get("octets").buffer || model.get("octets"));
  const scene = new Scene(model.get("data"), octets, model.get("shared"));
  const view = new View(scene);
  view.listeners.push((kind, value) => {
    if (kind !== "packet") return;
    model.set("selected", value);
    model.save_changes();
  });
  const states = new States(scene, (at) => view.select(view.near(at), "chosen"));
  const chosen = view.conversation.value;
  states.show(chosen === "" ? null : Number(chosen));
  view.listeners.push((kind, value) => (kind === "packet" ? states.now(value) : states.show(value)));
  const folded = html("details", {}, html("summary", {}, "states of both ends"), states.element);
  el.classList.add("nl");
  el.append(view.element, folded);
  return () => el.replaceChildren();
}

export default { render };
