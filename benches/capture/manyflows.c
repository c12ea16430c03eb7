/* manyflows: a capture of very many short, interleaved flows, the same octets for the same seed.
 *
 * usage: manyflows OUT.pcap FLOWS CONCURRENT SEED [micro|nano]
 *
 * At any moment CONCURRENT flows are alive; each is a script of up to 28 packets drawn when it
 * starts, and a heap of due times interleaves them. Of 100 flows 82 are TCP connections (requests
 * and replies, orderly or reset), 8 are connection attempts without or with a refusal, 9 are UDP
 * exchanges, 1 is a few pings. One flow in eight is IPv6. Some data segments are sent twice
 * (after 230 ms), some swapped with their neighbour, so that the analysis has something to find.
 * IPv4 header checksums are right; TCP and UDP checksums are zero.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 32, FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

struct step { uint32_t wait_us, sequence, acknowledgement; uint16_t length; uint8_t flags, from_server; };

struct flow {
    uint64_t due_us;
    uint32_t client, server;
    uint16_t client_port, server_port;
    uint8_t protocol, version, steps, at;
    struct step step[MOST_STEPS];
};

static FILE *out;
static int nano;
static uint64_t state, written, octets;
static struct flow *flows;
static uint32_t *heap, heaped;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static uint32_t below(uint32_t n) { return (uint32_t)((next_random() >> 32) * n >> 32); }

static uint8_t *put16(uint8_t *p, uint32_t v) { p[0] = v >> 8; p[1] = v; return p + 2; }
static uint8_t *put32(uint8_t *p, uint32_t v) { return put16(put16(p, v >> 16), v); }

/* ------------------------------------------------------------------ scripts */

static void add(struct flow *f, uint32_t wait_us, int from_server, int flags, uint32_t length, const uint32_t *position) {
    if (f->steps == MOST_STEPS) return;
    f->step[f->steps++] = (struct step){wait_us, position[from_server], position[!from_server], length, flags, from_server};
}

static void script_connection(struct flow *f) {
    uint32_t position[2] = {(uint32_t)next_random(), (uint32_t)next_random()};
    uint32_t rtt = 300 + below(70000);
    add(f, 0, 0, SYN, 0, position);
    position[0]++;
    add(f, rtt, 1, SYN | ACK, 0, position);
    position[1]++;
    add(f, rtt / 3, 0, ACK, 0, position);
    int segments = 2 + below(7);
    for (int i = 0; i < segments && f->steps < MOST_STEPS - 8; i++) {
        int from_server = i % 3 != 0, luck = below(1000);
        uint32_t length = 30 + below(from_server ? 560 : 220);
        uint32_t pause = 4000 + below(500000);
        if (luck < 6 && from_server) { /* two segments in the wrong order */
            uint32_t second = 30 + below(560), after[2] = {position[0], position[1] + length};
            add(f, pause, 1, PSH | ACK, second, after);
            add(f, 300, 1, ACK, length, position);
            position[1] += length + second;
        } else {
            add(f, pause, from_server, PSH | ACK, length, position);
            if (luck >= 985) add(f, 230000, from_server, PSH | ACK, length, position);
            position[from_server] += length;
        }
        if (i % 3 != 1) add(f, rtt / 2, !from_server, ACK, 0, position);
    }
    if (below(20) == 0) { add(f, 50000, 0, RST | ACK, 0, position); return; }
    add(f, 20000 + below(900000), 0, FIN | ACK, 0, position);
    position[0]++;
    add(f, rtt, 1, FIN | ACK, 0, position);
    position[1]++;
    add(f, rtt / 3, 0, ACK, 0, position);
}

static void script_attempt(struct flow *f) {
    uint32_t position[2] = {(uint32_t)next_random(), 0};
    if (below(10) == 0) {
        add(f, 0, 0, SYN, 0, position);
        position[0]++;
        add(f, 40000, 1, RST | ACK, 0, position);
        return;
    }
    for (int i = 0; i < 4; i++) add(f, i ? 1000000u << (i - 1) : 0, 0, SYN, 0, position);
}

static void script_exchange(struct flow *f) {
    uint32_t none[2] = {0, 0};
    int pairs = f->protocol == 17 ? 1 + below(2) : 3;
    for (int i = 0; i < pairs; i++) {
        add(f, i ? 100000 : 0, 0, 0, f->protocol == 17 ? 30 + below(40) : 56, none);
        add(f, 500 + below(60000), 1, 0, f->protocol == 17 ? 60 + below(300) : 56, none);
    }
}

static void begin(struct flow *f, uint64_t due_us) {
    static const uint16_t services[] = {443, 443, 443, 443, 80, 80, 22, 25, 8080, 3306};
    uint32_t kind = below(100);
    f->due_us = due_us;
    f->version = below(8) ? 4 : 6;
    f->client = 0x0a000000u | below(1u << 22);
    f->server = 0xac100000u | below(1u << 16);
    f->client_port = 1024 + below(64000);
    f->protocol = kind < 90 ? 6 : kind < 99 ? 17 : f->version == 4 ? 1 : 58;
    f->server_port = f->protocol == 17 ? 53 : services[below(10)];
    f->steps = f->at = 0;
    if (kind < 82) script_connection(f);
    else if (kind < 90) script_attempt(f);
    else script_exchange(f);
}

/* ------------------------------------------------------------------ packets */

static uint8_t *network_header(uint8_t *p, const struct flow *f, int from_server, uint32_t length) {
    uint32_t source = from_server ? f->server : f->client, target = from_server ? f->client : f->server;
    memset(p, 0, 12);
    p[0] = p[6] = 2;
    p[5] = 1 + !from_server, p[11] = 1 + from_server;
    p = put16(p + 12, f->version == 4 ? 0x0800 : 0x86dd);
    if (f->version == 6) {
        p = put32(p, 0x60000000);
        p = put16(p, length);
        *p++ = f->protocol, *p++ = 64;
        for (int i = 0; i < 2; i++) {
            memset(p, 0, 16);
            p[0] = 0xfd;
            put32(p + 12, i ? target : source);
            p += 16;
        }
        return p;
    }
    uint8_t *header = p;
    p = put16(p, 0x4500), p = put16(p, 20 + length);
    p = put16(p, written), p = put16(p, 0x4000);
    *p++ = 64, *p++ = f->protocol;
    p = put16(p, 0), p = put32(p, source), p = put32(p, target);
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2) sum += header[i] << 8 | header[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    put16(header + 10, ~sum);
    return p;
}

static void emit(const struct flow *f, const struct step *s) {
    uint8_t frame[1600], *p;
    uint16_t from = s->from_server ? f->server_port : f->client_port, to = s->from_server ? f->client_port : f->server_port;
    if (f->protocol == 6) {
        uint32_t options = s->flags & SYN ? 20 : 12, stamp = f->due_us / 1000;
        p = network_header(frame, f, s->from_server, 20 + options + s->length);
        p = put16(p, from), p = put16(p, to);
        p = put32(p, s->sequence), p = put32(p, s->flags & ACK ? s->acknowledgement : 0);
        *p++ = (5 + options / 4) << 4, *p++ = s->flags;
        p = put16(p, 64240), p = put32(p, 0);
        if (s->flags & SYN) p = put32(p, 0x020405b4), p = put16(p, 0x0402);
        else p = put16(p, 0x0101);
        p = put16(p, 0x080a), p = put32(p, stamp), p = put32(p, s->flags & ACK ? stamp - 10 : 0);
        if (s->flags & SYN) p = put32(p, 0x01030307);
    } else if (f->protocol == 17) {
        p = network_header(frame, f, s->from_server, 8 + s->length);
        p = put16(p, from), p = put16(p, to), p = put16(p, 8 + s->length), p = put16(p, 0);
    } else {
        p = network_header(frame, f, s->from_server, 8 + s->length);
        *p++ = f->protocol == 1 ? (s->from_server ? 0 : 8) : 128 + s->from_server, *p++ = 0;
        p = put16(p, 0), p = put16(p, f->client_port), p = put16(p, f->at / 2);
    }
    memset(p, 'm', s->length);
    uint32_t length = p + s->length - frame;
    uint32_t record[4] = {f->due_us / 1000000, f->due_us % 1000000 * (nano ? 1000 : 1), length, length};
    fwrite(record, 16, 1, out);
    fwrite(frame, length, 1, out);
    written++;
    octets += length;
}

/* ------------------------------------------------------------------ heap by due time */

static int earlier(uint32_t a, uint32_t b) { return flows[heap[a]].due_us < flows[heap[b]].due_us; }
static void exchange(uint32_t a, uint32_t b) { uint32_t t = heap[a]; heap[a] = heap[b]; heap[b] = t; }
static void sift_up(uint32_t i) { for (; i && earlier(i, (i - 1) / 2); i = (i - 1) / 2) exchange(i, (i - 1) / 2); }
static void sift_down(uint32_t i) {
    for (uint32_t child; (child = 2 * i + 1) < heaped; i = child) {
        if (child + 1 < heaped && earlier(child + 1, child)) child++;
        if (!earlier(child, i)) return;
        exchange(child, i);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) { fprintf(stderr, "usage: manyflows OUT.pcap FLOWS CONCURRENT SEED [micro|nano]\n"); return 2; }
    uint64_t wanted = strtoull(argv[2], NULL, 10), begun = 0, start = 1700000000ull * 1000000;
    uint32_t concurrent = strtoul(argv[3], NULL, 10);
    state = strtoull(argv[4], NULL, 10);
    nano = argc > 5 && strcmp(argv[5], "nano") == 0;
    if ((out = fopen(argv[1], "wb")) == NULL) { perror(argv[1]); return 1; }
    setvbuf(out, NULL, _IOFBF, 1 << 20);
    uint32_t header[6] = {nano ? 0xa1b23c4d : 0xa1b2c3d4, 2 | 4 << 16, 0, 0, 262144, 1};
    fwrite(header, 24, 1, out);
    flows = calloc(concurrent, sizeof *flows);
    heap = calloc(concurrent, sizeof *heap);
    for (; heaped < concurrent && begun < wanted; begun++) {
        begin(&flows[heaped], start + below(3000000));
        heap[heaped] = heaped;
        sift_up(heaped++);
    }
    while (heaped) {
        struct flow *f = &flows[heap[0]];
        emit(f, &f->step[f->at]);
        if (++f->at < f->steps) f->due_us += f->step[f->at].wait_us;
        else if (begun < wanted) { begin(f, f->due_us + below(1000000)); begun++; }
        else heap[0] = heap[--heaped];
        sift_down(0);
    }
    if (fclose(out)) { perror(argv[1]); return 1; }
    fprintf(stderr, "{\"packets\": %" PRIu64 ", \"octets\": %" PRIu64 ", \"flows\": %" PRIu64 "}\n", written, octets, begun);
    return 0;
}
