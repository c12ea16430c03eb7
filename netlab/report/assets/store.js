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
