// The header inspector: one packet as boxes of its layers and as fields in rows of 32 bits.

import { decode } from "./packet.js";
import { duration, explain, label, seconds, signs } from "./words.js";

export function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const key in attributes) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), attributes[key]);
    else if (attributes[key] !== false) node.setAttribute(key, attributes[key]);
  }
  node.append(...children);
  return node;
}

export class Inspector {
  constructor(scene, onSelect) {
    this.scene = scene;
    this.onSelect = onSelect;
    this.element = html("div", { class: "nl-inspector", "aria-live": "polite", role: "region", "aria-label": "packet" });
    this.element.append(html("p", { class: "nl-hint" }, "Choose a packet: click it, or use the arrow keys in the ladder."));
  }

  show(index) {
    const p = this.scene.passage(index);
    const from = p.forward ? p.conversation.opener : p.conversation.answerer;
    const to = p.forward ? p.conversation.answerer : p.conversation.opener;
    this.element.replaceChildren(
      html("h4", {}, `${p.index + 1}: ${signs(p)}${label(p)}`),
      html("p", { class: "nl-route" }, `${from} → ${to}, after ${seconds(p.at)} s`),
      html("p", {}, explain(p, this.scene)),
      ...this.ends(p),
      this.sights(p),
      ...this.relations(p),
    );
    const octets = this.scene.headerOctets(index);
    if (!octets) {
      this.element.append(html("p", { class: "nl-hint" }, "The octets of this packet were not kept here."));
      return;
    }
    const link = this.scene.links[p.octets[2]];
    const packet = decode(octets, link, this.scene.shared.layouts);
    const boxes = new Map();
    const reveal = (header) => {
      boxes.get(header).open = true;
      boxes.get(header).scrollIntoView({ block: "nearest" });
    };
    this.element.append(stack(packet, p, reveal), ...verdicts(packet, p));
    const innermost = packet.headers.indexOf(innermostIp(packet));
    for (const [place, header] of packet.headers.entries()) {
      const box = html("details", { class: header.inside ? "nl-header nl-option" : "nl-header" });
      box.open = place >= innermost && ["IPv4", "IPv6", "TCP", "UDP", "ICMP", "ICMPv6"].includes(header.name);
      boxes.set(header, box);
      box.append(html("summary", {}, header.name, html("small", {}, ` ${header.length} octets · ${header.source}`)));
      box.append(grid(header), table(header));
      this.element.append(box);
    }
    this.element.append(dump(octets, packet));
  }

  // Both ends, each with the state it was in before and after this packet.
  ends(p) {
    const steps = this.scene.step(p.index);
    if (!steps) return [];
    const box = html("dl", { class: "nl-ends" });
    for (const { name, before, after } of steps) {
      const words = before === after ? after : `${before} → ${after}`;
      box.append(html("div", { class: before === after ? "" : "nl-changes" }, html("dt", {}, name), html("dd", {}, words)));
    }
    return [box];
  }

  sights(p) {
    const body = p.points.map(({ point, at, frame }, k) =>
      html("tr", {}, html("th", { scope: "row" }, this.scene.points[point]), html("td", {}, seconds(at)),
        html("td", {}, k ? `+${duration(at - p.points[k - 1].at)}` : ""), html("td", {}, `${frame}`)));
    if (p.lost >= 0) body.push(html("tr", { class: "nl-gone" }, html("th", { scope: "row", colspan: 4 }, `✕ ${p.why ?? "not seen any further"}`)));
    return html("table", { class: "nl-sights" },
      html("thead", {}, html("tr", {}, ...["seen at", "s", "after", "frame"].map((t) => html("th", { scope: "col" }, t)))),
      html("tbody", {}, ...body));
  }

  relations(p) {
    const found = [];
    const link = (text, index) => html("button", { type: "button", class: "nl-link", onclick: () => this.onSelect(index, "chosen") }, text);
    if (p.repeats !== null) found.push(html("p", {}, "Repeats ", link(`packet ${p.repeats + 1}`, p.repeats)));
    const again = this.scene.passages.repeats.indexOf(p.index);
    if (again >= 0) found.push(html("p", {}, "Repeated by ", link(`packet ${again + 1}`, again)));
    if (p.copy !== null) found.push(html("p", {}, "Copy of ", link(`packet ${p.copy + 1}`, p.copy)));
    found.push(html("p", { class: "nl-filter" }, "In Wireshark: ", html("code", {}, `frame.number == ${p.points[0].frame}`)));
    return found;
  }
}

// The header of the packet that all others carry; what an ICMP error quotes is none.
function innermostIp(packet) {
  const icmp = packet.headers.findIndex((h) => h.name.startsWith("ICMP"));
  const before = icmp < 0 ? packet.headers : packet.headers.slice(0, icmp);
  return before.findLast((h) => h.name === "IPv4" || h.name === "IPv6");
}

const LAYERS = {
  IPv4: "Internet layer: brings the packet from address to address, router by router; it promises neither arrival nor order.",
  IPv6: "Internet layer: brings the packet from address to address, router by router; it promises neither arrival nor order.",
  TCP: "Transport layer: makes an ordered stream of octets between two ports out of packets that may be lost or overtaken.",
  UDP: "Transport layer: adds ports and a checksum to IP, nothing else.",
  ICMP: "Beside the internet layer: reports what became of a packet, and answers echo requests.",
  ICMPv6: "Beside the internet layer: reports what became of a packet, finds neighbours, answers echo requests.",
  data: "Application layer: octets that a program wrote; TCP sees no meaning and no boundaries in them.",
};

// The layers as boxes around each other, as wide as they are long; a click opens one.
function stack(packet, p, open) {
  const parts = packet.headers.filter((h) => !h.inside).map((h) => {
    const options = packet.headers.filter((o) => o.inside === h.name).reduce((sum, o) => sum + o.length, 0);
    return [h.name, h.length + options, h];
  });
  const data = p.length && p.text === null ? p.length : Math.max(0, packet.payload);
  if (data) parts.push(["data", data, null]);
  const box = html("div", { class: "nl-stack", role: "group", "aria-label": "layers of this packet" });
  const said = html("p", { class: "nl-said", role: "status" }, "Choose a layer.");
  for (const [name, length, header] of parts) {
    const part = html("button", { type: "button", class: `nl-layer nl-layer-${name.toLowerCase().replace(/\W.*/, "")}` }, name, html("small", {}, `${length}`));
    part.setAttribute("aria-label", `${name}, ${length} octets`);
    part.style.flexGrow = Math.max(14, Math.min(length, 60));
    part.addEventListener("click", () => {
      said.textContent = `${name}, ${length} octets. ${(header?.about || LAYERS[name]) ?? "It lies between the others."}`;
      if (header) open(header);
    });
    box.append(part);
  }
  return html("div", {}, box, said);
}

function verdicts(packet, p) {
  const found = [];
  const inner = innermostIp(packet);
  const carrying = packet.headers.slice(0, packet.headers.indexOf(inner));
  for (const v4 of [...carrying, inner].filter((h) => h?.sum !== undefined)) {
    const name = v4 === inner ? "IPv4 checksum" : `checksum of the IPv4 header at octet ${v4.octet}`;
    found.push(v4.sum === null ? `${name} cannot be checked` : v4.sum === v4.of("checksum") ? `${name} is right`
      : `${name} is wrong, should be 0x${v4.sum.toString(16).padStart(4, "0")}`);
  }
  const words = { good: "TCP checksum is right", bad: "TCP checksum is wrong", partial: "TCP checksum was left to the network card" };
  if (p.checksum) found.push(words[p.checksum] || `TCP checksum: ${p.checksum}`);
  for (const text of packet.odd) found.push(`against the rules: ${text}`);
  if (packet.cut) found.push(`what was kept ${packet.cut}`);
  return found.length ? [html("ul", { class: "nl-verdicts" }, ...found.map((text) => html("li", {}, text)))] : [];
}

function grid(header) {
  const box = html("div", { class: "nl-bits", "aria-hidden": "true" });
  const ruler = html("div", { class: "nl-ruler" });
  for (const bit of [0, 8, 16, 24]) ruler.append(html("span", {}, `${bit}`));
  const said = html("p", { class: "nl-said" }, "Point at a field.");
  box.append(ruler);
  for (const field of header.fields) {
    let [bit, left, first] = [field.bit, field.bits, true];
    while (left > 0) {
      const take = Math.min(left, 32 - (bit % 32));
      const cell = html("button", { type: "button", class: first ? "nl-field" : "nl-field nl-more", tabindex: "-1" });
      cell.style.gridColumn = `${(bit % 32) + 1} / span ${take}`;
      const [name, value] = take < 3 ? [field.name[0], `${field.value}`]
        : take < 6 ? [field.name.slice(0, 4), field.text.split(" ")[0]] : [field.name, field.text];
      if (first) cell.append(html("b", {}, name), html("i", {}, value));
      const tell = () => { said.textContent = `${field.name} = ${field.text}: ${field.meaning} (${field.source})`; };
      cell.addEventListener("pointerenter", tell);
      cell.addEventListener("click", tell);
      box.append(cell);
      [bit, left, first] = [bit + take, left - take, false];
    }
  }
  const whole = html("div", {}, box, said);
  return whole;
}

function table(header) {
  const rows = header.fields.map((f) => {
    const bits = f.bits === 1 ? `${f.bit}` : `${f.bit}–${f.bit + f.bits - 1}`;
    return html("tr", {}, html("td", {}, bits), html("th", { scope: "row" }, f.name), html("td", {}, f.text), html("td", {}, f.meaning), html("td", {}, f.source));
  });
  const head = html("tr", {}, ...["bits", "field", "value", "meaning", "source"].map((t) => html("th", { scope: "col" }, t)));
  return html("details", { class: "nl-fields" }, html("summary", {}, "all fields"),
    html("div", { class: "nl-wide" }, html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows))));
}

function dump(octets, packet) {
  const lines = [];
  for (let at = 0; at < octets.length; at += 16) {
    const part = [...octets.subarray(at, at + 16)];
    const hex = part.map((o) => o.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((o) => (o > 31 && o < 127 ? String.fromCharCode(o) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  const kept = packet.end > octets.length ? ` (the first ${octets.length})` : "";
  return html("details", { class: "nl-fields" }, html("summary", {}, `octets${kept}`), html("pre", {}, lines.join("\n")));
}
