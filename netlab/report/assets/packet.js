// Decodes the headers of a packet by the layouts of netlab.analysis.headers, field by field.
//
// The walk is the same as there (a test holds both against each other); what fields are called,
// how wide they are and what they mean comes from `layouts`, so it is written down once.

class Cut extends Error {}

const AUTHENTICATION = 51;
const EXTENSIONS = new Set([0, 43, 44, AUTHENTICATION, 60, 135, 139, 140]);
const ICMP_ERRORS = new Set([3, 4, 5, 11, 12]);
const ICMPV6_ERRORS = new Set([1, 2, 3, 4]);

const WRITE = {
  dec: (show, v) => `${v}`,
  hex: ([, digits], v) => `0x${v.toString(16).padStart(digits, "0")}`,
  flag: (show, v) => (v ? "set" : "not set"),
  v4: (show, v) => [24, 16, 8, 0].map((s) => (v >>> s) & 255).join("."),
  v6: (show, v) => ipv6(v),
  mac: (show, v) => v.toString(16).padStart(12, "0").match(/../g).join(":"),
  shift: (show, v) => `${v} (times ${1 << Math.min(v, 14)})`,
  named: ([, , , , names], v) => (v in names ? `${v} (${names[v]})` : `${v}`),
  words: ([, unit, what, more], v) => `${v} (${v * unit + more} ${what})`,
};

// A number of at most 32 bits that was written with its least octet first.
function turned(value, bits) {
  let found = 0;
  for (let bit = 0; bit < bits; bit += 8) found = found * 256 + ((value >>> bit) & 255);
  return found;
}

function ipv6(value) {
  const hex = value.toString(16).padStart(32, "0");
  const groups = hex.match(/.{4}/g).map((g) => g.replace(/^0{1,3}/, ""));
  if (groups.slice(0, 5).every((g) => g === "0") && groups[5] === "ffff") {
    const tail = [24, 25, 26, 27, 28, 29, 30, 31].map((i) => hex[i]).join("");
    return "::ffff:" + tail.match(/../g).map((octet) => parseInt(octet, 16)).join(".");
  }
  let best = [0, 0];
  for (let i = 0; i < 8; ) {
    let j = i;
    while (j < 8 && groups[j] === "0") j++;
    if (j - i > best[1] - best[0]) best = [i, j];
    i = Math.max(j, i + 1);
  }
  if (best[1] - best[0] < 2) return groups.join(":");
  return `${groups.slice(0, best[0]).join(":")}::${groups.slice(best[1]).join(":")}`;
}

class Walk {
  constructor(data, layouts) {
    this.data = data;
    this.layouts = layouts;
    this.at = 0;
    this.end = null;
    this.headers = [];
    this.odd = [];
    this.cut = "";
  }

  number(start, bits) {
    let value = bits > 31 ? 0n : 0;
    const big = bits > 31;
    for (let bit = start; bit < start + bits; ) {
      const octet = this.data[bit >> 3];
      const take = Math.min(8 - (bit & 7), start + bits - bit);
      const part = (octet >> (8 - (bit & 7) - take)) & ((1 << take) - 1);
      value = big ? (value << BigInt(take)) | BigInt(part) : value * 2 ** take + part;
      bit += take;
    }
    return bits <= 32 ? Number(value) : value;
  }

  rows(name, rows, source = "", inside = "") {
    return this.parts(name, [[rows, [], null]], source, inside);
  }

  parts(name, parts, source = "", inside = "") {
    const fields = [];
    const values = {};
    let bit = 0;
    for (const [rows, when, length] of parts) {
      if (!holds(when, values)) continue;
      for (const [label, bits, show, meaning, where] of length ? sized(rows[0], length, values) : rows) {
        const start = this.at * 8 + bit;
        if (start + bits > this.data.length * 8) {
          if (fields.length) this.keep(name, bit >> 3, fields, source, inside);
          throw new Cut(`ends inside ${name}, before ${label}`);
        }
        const read = this.number(start, bits);
        const value = show[5] ? turned(read, bits) : read;
        const text = WRITE[show[0]](show, value);
        fields.push({ name: label, bit, bits, value, text, meaning, source: where, octet: start >> 3 });
        values[label] = value;
        bit += bits;
      }
    }
    const header = this.keep(name, bit >> 3, fields, source, inside);
    this.at += bit >> 3;
    return header;
  }

  keep(name, length, fields, source, inside) {
    const header = { name, octet: this.at, length, fields, source, inside };
    header.of = (label) => fields.find((f) => f.name === label).value;
    this.headers.push(header);
    return header;
  }

  spent() {
    return this.end !== null && this.at >= this.end;
  }

  within(end) {
    return this.end === null ? end : Math.min(end, this.end);
  }

  // The layer that a branch leads to, null if it has no entry for what is there.
  way([table, by, [skip, take]], values, name) {
    let found = by.filter((field) => field in values).map((field) => values[field]);
    if (!by.length) {
      const last = Math.ceil((this.at * 8 + skip + take) / 8);
      if (this.end !== null && last > this.end) return null;
      if (last > this.data.length) throw new Cut(`ends inside ${name}`);
      found = [this.number(this.at * 8 + skip, take)];
    }
    const entry = this.layouts.tables[table].find(([low, high]) => found.some((value) => low <= value && value <= high));
    return entry ? entry[2] : null;
  }

  octets(name, length, meaning, source, inside) {
    this.rows(name, [[name, length * 8, ["hex", length * 2], meaning, source]], source, inside);
  }
}

function holds(when, values) {
  return when.every((clause) => clause.some((name) => values[name]));
}

// The row of a part as wide as a field before it says; none where it is empty.
function sized([label, , , meaning, source], [name, unit, more, aligned], values) {
  const octets = Math.ceil((values[name] * unit + more) / aligned) * aligned;
  return octets > 0 ? [[label, octets * 8, ["hex", octets * 2], meaning, source]] : [];
}

export function decode(data, link, layouts) {
  const walk = new Walk(data, layouts);
  let layer = link;
  try {
    while (layer && !walk.spent()) {
      layer = layer === "ip" || layer === "ipv4" || layer === "ipv6" ? ip(walk, layer, false) : step(walk, layouts.layers[layer]);
    }
  } catch (error) {
    if (!(error instanceof Cut)) throw error;
    walk.cut = error.message;
    walk.at = data.length;
  }
  const end = walk.end ?? data.length;
  return { headers: walk.headers, odd: walk.odd, cut: walk.cut, end, payload: Math.max(0, end - walk.at) };
}

// Steps over a link layer or a tunnel; the layer that follows, "" where none is known.
function step(walk, { name, source, about, parts, then, only }) {
  let values = {};
  if (parts.length) {
    const header = walk.parts(name, parts, source);
    header.about = about;
    values = Object.fromEntries(header.fields.map((f) => [f.name, f.value]));
  }
  if (!only.every(([field, low, high]) => !(field in values) || (low <= values[field] && values[field] <= high))) return "";
  if (walk.spent()) return "";
  for (const branch of then) {
    if (!holds(branch[3], values)) continue;
    const found = walk.way(branch, values, name);
    if (found !== null) return found;
  }
  return "";
}

function ip(walk, layer, quoted) {
  if (walk.at >= walk.data.length) throw new Cut("ends before the IP header");
  const version = walk.data[walk.at] >> 4;
  if (version === 4 && layer !== "ipv6") return ipv4(walk, quoted);
  if (version === 6 && layer !== "ipv4") return ipv6Header(walk, quoted);
  walk.odd.push(`IP version ${version}`);
  throw new Cut(`is of IP version ${version}`);
}

// Where an IP packet ends; a length of 0 says: where its frame does.
function endOf(walk, start, length, quoted) {
  if (quoted) return start + length;
  walk.end = length ? walk.within(start + length) : walk.end ?? walk.data.length;
  return walk.end;
}

function ipv4(walk, quoted) {
  const start = walk.at;
  const header = walk.rows("IPv4", walk.layouts.rows.ipv4, "RFC 791 §3.1");
  const length = header.of("header length") * 4;
  if (length < 20) {
    walk.odd.push("an IPv4 header shorter than 20 octets");
    throw new Cut("has an IPv4 header of less than 20 octets");
  }
  const end = endOf(walk, start, header.of("total length"), quoted);
  header.sum = start + length <= walk.data.length ? onesComplement(walk.data.subarray(start, start + length), 10) : null;
  if (header.of("reserved")) walk.odd.push("the reserved flag is set");
  while (walk.at < start + length) ipv4Option(walk, start + length);
  if (header.of("fragment offset")) return "";
  return transport(walk, header.of("protocol"), end, !header.of("MF") && !quoted);
}

function onesComplement(octets, hole) {
  let total = 0;
  for (let i = 0; i < octets.length; i += 2) {
    if (i !== hole) total += (octets[i] << 8) | (i + 1 < octets.length ? octets[i + 1] : 0);
  }
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return ~total & 0xffff;
}

function ipv4Option(walk, end) {
  if (walk.at >= walk.data.length) throw new Cut("ends inside the options of IPv4");
  const kind = walk.data[walk.at];
  if (kind < 2) {
    walk.octets(kind === 0 ? "end of options" : "no operation", 1, "padding", "RFC 791 §3.1", "IPv4");
    return;
  }
  let length = walk.at + 1 < walk.data.length ? walk.data[walk.at + 1] : 0;
  if (length < 2 || walk.at + length > end) {
    walk.odd.push(`IPv4 option ${kind} has the length ${length}`);
    length = end - walk.at;
  }
  walk.octets(`option ${kind}`, length, "not explained here", "RFC 791 §3.1", "IPv4");
}

function ipv6Header(walk, quoted) {
  const { rows, protocols } = walk.layouts;
  const start = walk.at;
  const header = walk.rows("IPv6", rows.ipv6, "RFC 8200 §3");
  const length = header.of("payload length");
  const end = endOf(walk, start, length && 40 + length, quoted);
  let whole = !quoted;
  let follows = header.of("next header");
  while (EXTENSIONS.has(follows)) {
    const at = walk.at;
    const name = protocols[follows];
    let found;
    if (follows === 44) {
      found = walk.rows(name, rows.fragment, "RFC 8200 §4.5");
      if (found.of("fragment offset")) return "";
      whole = whole && !found.of("M");
    } else if (follows === AUTHENTICATION) {
      const { name: title, parts, source } = walk.layouts.layers.authentication;
      found = walk.parts(title, parts, source);
    } else {
      found = walk.rows(name, rows.extension, "RFC 8200 §4");
      walk.at = at + 8 + 8 * found.of("length");
      if (walk.at > walk.data.length) throw new Cut(`ends inside the ${name}`);
    }
    follows = found.of("next header");
  }
  return transport(walk, follows, end, whole);
}

// Decodes what IP carries; the layer that this carries in turn, if it is a tunnel.
function transport(walk, protocol, end, whole) {
  const { rows, ports, carried } = walk.layouts;
  const start = walk.at;
  if (protocol === 6) {
    const header = walk.rows("TCP", rows.tcp, "RFC 9293 §3.1");
    const length = header.of("data offset") * 4;
    if (length < 20 || start + length > end) {
      walk.odd.push(`a TCP header of ${length} octets`);
      return "";
    }
    if (header.of("reserved")) walk.odd.push("reserved bits of TCP are set");
    while (walk.at < start + length) tcpOption(walk, start + length, header.of("SYN"));
  } else if (protocol === 17) {
    const header = walk.rows("UDP", rows.udp, "RFC 768");
    if (header.of("length") < 8) walk.odd.push(`a UDP length of ${header.of("length")}`);
    else if (whole) walk.end = walk.within(start + header.of("length"));
    if (whole) return walk.way(ports, Object.fromEntries(header.fields.map((f) => [f.name, f.value])), "UDP") ?? "";
  } else if (protocol === 1) {
    const header = walk.rows("ICMP", rows.icmp, "RFC 792");
    const [kind, code] = [header.of("type"), header.of("code")];
    const rest = kind === 0 || kind === 8 ? rows.echo : kind === 3 && code === 4 ? rows.too_big : rows.rest;
    walk.rows("ICMP message", rest, "RFC 792", "ICMP");
    if (ICMP_ERRORS.has(kind)) ip(walk, "ip", true);
  } else if (protocol === 58) {
    const kind = walk.rows("ICMPv6", rows.icmpv6, "RFC 4443 §2.1").of("type");
    const rest = kind === 128 || kind === 129 ? rows.echo : kind === 2 ? rows.too_big6 : rows.rest;
    walk.rows("ICMPv6 message", rest, "RFC 4443", "ICMPv6");
    if (ICMPV6_ERRORS.has(kind)) ip(walk, "ip", true);
  } else if (whole) {
    return walk.way(carried, { protocol }, "IP") ?? "";
  }
  return "";
}

function tcpOption(walk, end, syn) {
  const { options, unread, rows } = walk.layouts;
  if (walk.at >= walk.data.length) throw new Cut("ends inside the options of TCP");
  const kind = walk.data[walk.at];
  if (kind < 2) {
    const name = kind === 0 ? "end of options" : "no operation";
    const meaning = kind === 0 ? "the rest is padding" : "padding to a limit of four octets";
    walk.rows(name, [["kind", 8, ["dec"], meaning, "RFC 9293 §3.2"]], "RFC 9293 §3.2", "TCP");
    if (kind === 0 && walk.at < end) {
      walk.octets("padding", end - walk.at, "after the end of options", "RFC 9293 §3.1", "TCP");
    }
    return;
  }
  const length = walk.at + 1 < walk.data.length ? walk.data[walk.at + 1] : 0;
  const known = options[kind];
  if (length < 2 || walk.at + length > end || (known && known[2] !== length)) {
    walk.odd.push(`TCP option ${kind} has the length ${length}`);
    walk.octets("malformed option", end - walk.at, "its length is wrong", "RFC 9293 §3.2", "TCP");
    return;
  }
  if (known) {
    const [name, source, , more] = known;
    walk.rows(name, [...rows.option, ...more], source, "TCP");
    if (kind <= 4 && !syn) walk.odd.push(`${name} outside a SYN`);
    return;
  }
  const [name, source] = unread[kind] || [`option ${kind}`, "RFC 9293 §3.2"];
  const more = [];
  if (kind === 5 && length > 2 && (length - 2) % 8 === 0) {
    for (let block = 1; block <= (length - 2) / 8; block++) {
      more.push([`left edge ${block}`, 32, ["dec"], "first number that arrived", source]);
      more.push([`right edge ${block}`, 32, ["dec"], "number after the last", source]);
    }
  } else if (length > 2) {
    more.push(["octets", (length - 2) * 8, ["hex", (length - 2) * 2], "not explained here", source]);
  }
  walk.rows(name, [...rows.option, ...more], source, "TCP");
}
