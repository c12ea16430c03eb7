// Decodes the headers of a packet by the layouts of netlab.analysis.headers, field by field.
//
// The walk is the same as there (a test holds both against each other); what fields are called,
// how wide they are and what they mean comes from `layouts`, so it is written down once.

class Cut extends Error {}

const EXTENSIONS = new Set([0, 43, 44, 60]);
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
    const fields = [];
    let bit = 0;
    for (const [label, bits, show, meaning, where] of rows) {
      const start = this.at * 8 + bit;
      if (start + bits > this.data.length * 8) {
        if (fields.length) this.keep(name, bit >> 3, fields, source, inside);
        throw new Cut(`ends inside ${name}, before ${label}`);
      }
      const value = this.number(start, bits);
      const text = WRITE[show[0]](show, value);
      fields.push({ name: label, bit, bits, value, text, meaning, source: where, octet: start >> 3 });
      bit += bits;
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

  octets(name, length, meaning, source, inside) {
    this.rows(name, [[name, length * 8, ["hex", length * 2], meaning, source]], source, inside);
  }
}

export function decode(data, link, layouts) {
  const walk = new Walk(data, layouts);
  let end = data.length;
  try {
    if (stepOverLink(walk, link)) end = ip(walk, false);
  } catch (error) {
    if (!(error instanceof Cut)) throw error;
    walk.cut = error.message;
    walk.at = data.length;
  }
  return { headers: walk.headers, odd: walk.odd, cut: walk.cut, end, payload: Math.max(0, end - walk.at) };
}

function stepOverLink(walk, link) {
  const { rows, links } = walk.layouts;
  if (link === "ip") return true;
  const source = {
    ethernet: "IEEE 802.3", cooked: "LINKTYPE_LINUX_SLL", cooked2: "LINKTYPE_LINUX_SLL2", loop: "LINKTYPE_NULL",
  }[link];
  const header = walk.rows(links[link], rows[link], source);
  if (link === "loop") return true;
  let kind = header.of("type");
  while (kind === 0x8100 || kind === 0x88a8) kind = walk.rows("VLAN", rows.vlan, "IEEE 802.1Q").of("type");
  return kind === 0x0800 || kind === 0x86dd;
}

function ip(walk, quoted) {
  if (walk.at >= walk.data.length) throw new Cut("ends before the IP header");
  const version = walk.data[walk.at] >> 4;
  if (version === 4) return ipv4(walk, quoted);
  if (version === 6) return ipv6Header(walk, quoted);
  walk.odd.push(`IP version ${version}`);
  throw new Cut(`is of IP version ${version}`);
}

function ipv4(walk, quoted) {
  const start = walk.at;
  const header = walk.rows("IPv4", walk.layouts.rows.ipv4, "RFC 791 §3.1");
  const length = header.of("header length") * 4;
  if (length < 20) {
    walk.odd.push("an IPv4 header shorter than 20 octets");
    throw new Cut("has an IPv4 header of less than 20 octets");
  }
  const end = start + header.of("total length");
  header.sum = start + length <= walk.data.length ? onesComplement(walk.data.subarray(start, start + length), 10) : null;
  if (header.of("reserved")) walk.odd.push("the reserved flag is set");
  while (walk.at < start + length) ipv4Option(walk, start + length);
  if (header.of("fragment offset")) return end;
  transport(walk, header.of("protocol"), end, quoted);
  return end;
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
  const end = start + 40 + header.of("payload length");
  let follows = header.of("next header");
  while (EXTENSIONS.has(follows)) {
    const at = walk.at;
    const name = protocols[follows];
    let found;
    if (follows === 44) {
      found = walk.rows(name, rows.fragment, "RFC 8200 §4.5");
      if (found.of("fragment offset")) return end;
    } else {
      found = walk.rows(name, rows.extension, "RFC 8200 §4");
      walk.at = at + 8 + 8 * found.of("length");
      if (walk.at > walk.data.length) throw new Cut(`ends inside the ${name}`);
    }
    follows = found.of("next header");
  }
  transport(walk, follows, end, quoted);
  return end;
}

function transport(walk, protocol, end) {
  const { rows } = walk.layouts;
  const start = walk.at;
  if (protocol === 6) {
    const header = walk.rows("TCP", rows.tcp, "RFC 9293 §3.1");
    const length = header.of("data offset") * 4;
    if (length < 20 || start + length > end) {
      walk.odd.push(`a TCP header of ${length} octets`);
      return;
    }
    if (header.of("reserved")) walk.odd.push("reserved bits of TCP are set");
    while (walk.at < start + length) tcpOption(walk, start + length, header.of("SYN"));
  } else if (protocol === 17) {
    const header = walk.rows("UDP", rows.udp, "RFC 768");
    if (header.of("length") < 8) walk.odd.push(`a UDP length of ${header.of("length")}`);
  } else if (protocol === 1) {
    const header = walk.rows("ICMP", rows.icmp, "RFC 792");
    const [kind, code] = [header.of("type"), header.of("code")];
    const rest = kind === 0 || kind === 8 ? rows.echo : kind === 3 && code === 4 ? rows.too_big : rows.rest;
    walk.rows("ICMP message", rest, "RFC 792", "ICMP");
    if (ICMP_ERRORS.has(kind)) ip(walk, true);
  } else if (protocol === 58) {
    const kind = walk.rows("ICMPv6", rows.icmpv6, "RFC 4443 §2.1").of("type");
    const rest = kind === 128 || kind === 129 ? rows.echo : kind === 2 ? rows.too_big6 : rows.rest;
    walk.rows("ICMPv6 message", rest, "RFC 4443", "ICMPv6");
    if (ICMPV6_ERRORS.has(kind)) ip(walk, true);
  }
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
