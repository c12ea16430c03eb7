// What is said of a packet: its label, and a sentence that explains it.

const NAMES = [
  [0x02, "SYN"], [0x01, "FIN"], [0x04, "RST"], [0x08, "PSH"], [0x20, "URG"], [0x40, "ECE"], [0x80, "CWR"],
  [0x100, "AE"], [0x10, "ACK"],
];
export const FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10;

export function flagNames(flags) {
  return NAMES.filter(([bit]) => flags & bit).map(([, name]) => name).join("-") || "none";
}

export function seconds(ns, digits = 6) {
  return (ns / 1e9).toFixed(digits);
}

export function duration(ns) {
  const size = Math.abs(ns);
  if (size >= 1e9) return `${(ns / 1e9).toPrecision(4)} s`;
  if (size >= 1e6) return `${(ns / 1e6).toPrecision(4)} ms`;
  if (size >= 1e3) return `${(ns / 1e3).toPrecision(4)} µs`;
  return `${ns} ns`;
}

export function label(p) {
  if (p.text !== null) return p.length ? `${p.text} len=${p.length}` : p.text;
  const parts = [flagNames(p.flags), `seq=${p.seq}`];
  if (p.flags & ACK) parts.push(`ack=${p.ack}`);
  if (p.length) parts.push(`len=${p.length}`);
  parts.push(`win=${p.window}`);
  for (let k = 0; p.sack && k < p.sack.length; k += 2) parts.push(`SACK ${p.sack[k]}–${p.sack[k + 1]}`);
  const told = p.analysisNames.filter((name) => TOLD.has(name)).map((name) => name.replaceAll("_", " "));
  if (told.length) parts.push(`[${told.join(", ")}]`);
  return parts.join(" ");
}

// What is said in a label beside what the header says: the rest is told when a packet is chosen.
const TOLD = new Set([
  "keep_alive", "keep_alive_ack", "zero_window", "zero_window_probe", "zero_window_probe_ack", "window_full",
  "window_update", "duplicate_ack", "out_of_order", "fast_retransmission", "spurious_retransmission", "reused_ports",
]);

// Signs before a label: meaning never hangs on colour alone.
export function signs(p) {
  return `${p.lost >= 0 ? "✕ " : ""}${p.repeats !== null ? "↻ " : ""}${p.copy !== null ? "⧉ " : ""}`;
}

export function explain(p, scene) {
  const said = [];
  const end = (forward) => (forward ? p.conversation.opener : p.conversation.answerer);
  const who = end(p.forward);
  if (p.text !== null) {
    said.push(/^ICMP/.test(p.text) ? `An ICMP message: ${p.text}.` : `${p.text}, ${p.length} octets from ${who}.`);
  } else if (p.flags & RST && scene.step(p.index)?.some(({ before, after }) => before === "SYN-SENT" && after === "CLOSED")) {
    said.push(`${who} refuses: no program listens at this port, or a firewall answers in its name.`);
  } else if (p.flags & RST) {
    said.push(`${who} ends the connection at once: nothing more is sent, what was not read is thrown away.`);
  } else if (p.flags & SYN && p.flags & ACK) {
    said.push(`${who} accepts and opens its own direction; the SYN of the other side took one number, so ack=${p.ack}.`);
  } else if (p.flags & SYN) {
    said.push(`${who} asks to open a connection. The SYN takes one sequence number; its options say what this side can do.`);
  } else if (p.flags & FIN) {
    said.push(`${who} has nothing more to send. The FIN takes one number; the other side may still go on sending.`);
  } else if (p.length) {
    said.push(`${who} sends ${p.length} octets, numbers ${p.seq} to ${p.seq + p.length - 1}.`);
  } else if (p.analysisNames.includes("keep_alive")) {
    said.push(`${who} asks whether the other side is still there: number ${p.seq} has been acknowledged long since, so an answer must come.`);
  } else if (p.flags & ACK) {
    said.push(`${who} has everything below ${p.ack} and takes ${p.window} octets more.`);
  }
  if (p.repeats !== null) {
    said.push(`It carries again what packet ${p.repeats + 1} had, ${duration(p.at - scene.at[p.repeats])} later.`);
  }
  if (p.copy !== null) said.push(`It is a copy of packet ${p.copy + 1}, made on the way.`);
  if (p.lost >= 0) said.push(`It was seen last at ${scene.points[p.lost]} and never arrived${p.why ? `: ${p.why}, as the journal of that link says` : ""}.`);
  if (p.sack) said.push(`Beyond that it has ${blocks(p.sack)} (SACK).`);
  const analysis = p.analysisNames.filter((name) => name !== "retransmission" || p.repeats === null);
  if (analysis.length) said.push(`Analysis: ${analysis.map((n) => n.replaceAll("_", " ")).join(", ")}.`);
  if (p.rtt !== null) said.push(`It acknowledges what was sent ${duration(p.rtt)} before.`);
  return said.join(" ");
}

function blocks(sack) {
  const found = [];
  for (let k = 0; k < sack.length; k += 2) found.push(`${sack[k]} to ${sack[k + 1] - 1}`);
  return found.join(", ");
}
