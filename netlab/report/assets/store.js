// Scenes as a page gets them: columns of JSON and a blob of octets, opened into what is drawn.

export async function gunzip(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class Scene {
  // `shared` holds layouts and names of analysis flags, the same for all scenes of a page.
  constructor(data, octets, shared) {
    Object.assign(this, data);
    this.octetsOfAll = octets;
    this.shared = shared;
    const { sights } = data.passages;
    this.size = sights.length;
    this.at = new Float64Array(this.size);
    this.end = new Float64Array(this.size);
    for (let i = 0; i < this.size; i++) {
      this.at[i] = sights[i][1];
      this.end[i] = sights[i][sights[i].length - 2];
    }
  }

  passage(i) {
    const columns = this.passages;
    const found = { index: i, at: this.at[i], end: this.end[i] };
    for (const name in columns) found[name] = columns[name][i];
    found.forward = !!found.forward;
    found.conversation = this.conversations[found.conversation];
    found.analysisNames = this.shared.analysis.filter((_, bit) => found.analysis & (1 << bit));
    found.points = [];
    for (let k = 0; k < found.sights.length; k += 3) {
      found.points.push({ point: found.sights[k], at: found.sights[k + 1], frame: found.sights[k + 2] });
    }
    return found;
  }

  history(conversation) {
    return (this.histories ?? []).find((one) => one.conversation === conversation);
  }

  // The states of both ends before and after a packet, or null where they are not known. A sender
  // has changed when the packet leaves, a receiver when it arrives; a lost packet changes nothing.
  step(i) {
    const number = this.passages.conversation[i];
    const history = this.history(number);
    if (!history || this.passages.text[i] !== null) return null;
    const before = this.before(i);
    return history.endpoints.map(({ name }, end) => {
      const sends = (k) => this.passages.forward[k] === (end === 0 ? 1 : 0);
      const when = (k) => (sends(k) || this.passages.lost[k] >= 0 ? this.at[k] : this.end[k]);
      const spans = history.spans.filter((span) => span.endpoint === name);
      const state = (at) => (spans.findLast((span) => span.from === null || span.from <= at) ?? spans[0])?.state ?? "";
      const then = when(i) - 1;
      const earlier = !sends(i) ? then : before < 0 ? -Infinity : Math.min(when(before), then);
      return { name, before: state(earlier), after: state(when(i)) };
    });
  }

  // The packet of the same connection before this one, -1 for none.
  before(i) {
    const column = this.passages.conversation;
    for (let k = i - 1; k >= 0; k--) if (column[k] === column[i]) return k;
    return -1;
  }

  headerOctets(i) {
    const place = this.passages.octets[i];
    return place ? this.octetsOfAll.subarray(place[0], place[0] + place[1]) : null;
  }

  // The passages of a conversation, with the ICMP errors about it; of all when `number` is null.
  of(number) {
    const wanted = new Set(
      this.conversations.filter((c) => number === null || c.number === number || c.about === number).map((c) => c.number),
    );
    const column = this.passages.conversation;
    const found = [];
    for (let i = 0; i < this.size; i++) if (wanted.has(column[i])) found.push(i);
    return found;
  }
}
