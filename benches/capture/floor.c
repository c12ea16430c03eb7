/* floor: how fast one core can go through a capture and keep the least that counts.
 *
 * It maps (or reads) a little-endian pcap, finds IPv4/IPv6 and TCP/UDP headers under Ethernet and
 * VLAN tags, and keeps for every five-tuple packets, octets and times and, for TCP and each
 * direction, the next sequence number, last acknowledgement, window and a retransmission count.
 * No check, no option, no fragment, no odd link type: an analyser that does the real work cannot
 * be faster than this, so `its CPU time / floor's CPU time` is its distance from the limit.
 *
 *   plain    one packet at a time
 *   batched  64 packets at a time: hash all and prefetch the buckets, prefetch the records the
 *            buckets point to, then update; hides the memory latency of a large flow table, whose
 *            records lie in huge pages here
 *
 * usage: floor FILE plain|batched [map|read]      prints one line of JSON
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 64, READ_CHUNK = 1 << 20, LONGEST = 1 << 18 };

struct key {
    uint64_t low[2], high[2]; /* the two addresses, the smaller first; IPv4 uses [0] only */
    uint32_t ports;           /* port of the smaller address in the upper half */
    uint32_t protocol;
};

struct side {
    uint32_t next, ack, window, retransmissions;
    uint64_t packets, octets;
};

struct flow {
    struct key key;
    uint64_t first, last;
    struct side side[2];
}; /* 136 octets */

struct packet {
    struct key key;
    uint64_t hash, time;
    const uint8_t *transport;
    uint32_t wire_length, transport_length;
    uint32_t direction, is_tcp;
};

static uint64_t *buckets; /* upper half: part of the hash; lower half: index of the flow + 1 */
static uint64_t mask = (1 << 16) - 1;
static struct flow *flows;
static uint64_t flow_count;
static uint64_t packets, wire_octets, tcp_packets, others, retransmissions;
static struct packet queue[BATCH];
static int queued;

static inline uint16_t be16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t be32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint32_t le32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t raw64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

static inline uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_of(const struct key *k) {
    uint64_t addresses = fold(k->low[0] ^ 0x2d358dccaa6c78a5ull, k->high[0] ^ 0x8bb84b93962eacc9ull);
    addresses ^= fold(k->low[1] ^ 0x4b33a62ed433d4a3ull, k->high[1] ^ 0x4d5a2da51de1aa47ull);
    return fold(addresses ^ k->protocol, k->ports ^ 0xa0761d6478bd642full);
}

/* Zeroed memory, on demand; in huge pages if wanted. */
static void *reserve(size_t octets, int huge) {
    void *p = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) { perror("mmap"); exit(1); }
    if (huge) madvise(p, octets, MADV_HUGEPAGE);
    return p;
}

static void grow(void) {
    uint64_t size = (mask + 1) * 2, new_mask = size - 1;
    uint64_t *fresh = reserve(size * 8, 0);
    for (uint64_t i = 0; i < flow_count; i++) {
        uint64_t h = hash_of(&flows[i].key), at = h & new_mask;
        while (fresh[at]) at = (at + 1) & new_mask;
        fresh[at] = (h & 0xffffffff00000000ull) | (i + 1);
    }
    munmap(buckets, (mask + 1) * 8);
    buckets = fresh;
    mask = new_mask;
}

static inline struct flow *find(const struct key *key, uint64_t hash, uint64_t time) {
    uint64_t at = hash & mask;
    for (uint64_t bucket; (bucket = buckets[at]) != 0; at = (at + 1) & mask)
        if ((bucket ^ hash) >> 32 == 0) {
            struct flow *flow = &flows[(uint32_t)bucket - 1];
            if (memcmp(&flow->key, key, sizeof *key) == 0) return flow;
        }
    if (flow_count * 2 > mask) { grow(); return find(key, hash, time); }
    buckets[at] = (hash & 0xffffffff00000000ull) | (flow_count + 1);
    struct flow *flow = &flows[flow_count++];
    flow->key = *key;
    flow->first = time;
    return flow;
}

static inline void update(struct flow *flow, const struct packet *p) {
    struct side *side = &flow->side[p->direction];
    flow->last = p->time;
    side->octets += p->wire_length;
    if (p->is_tcp) {
        const uint8_t *t = p->transport;
        uint32_t sequence = be32(t + 4), header = (t[12] >> 4) * 4;
        uint32_t length = p->transport_length - header + ((t[13] & 3) != 0);
        uint32_t end = sequence + length;
        if (side->packets && length && (int32_t)(sequence - side->next) < 0) { side->retransmissions++; retransmissions++; }
        if (!side->packets || (int32_t)(end - side->next) > 0) side->next = end;
        side->ack = be32(t + 8);
        side->window = be16(t + 14);
    }
    side->packets++;
}

static void drain(void) {
    for (int i = 0; i < queued; i++) {
        uint64_t bucket = buckets[queue[i].hash & mask];
        if (bucket) {
            const char *flow = (const char *)&flows[(uint32_t)bucket - 1];
            __builtin_prefetch(flow, 1);
            __builtin_prefetch(flow + 64, 1);
            __builtin_prefetch(flow + 128, 1);
        }
    }
    for (int i = 0; i < queued; i++) update(find(&queue[i].key, queue[i].hash, queue[i].time), &queue[i]);
    queued = 0;
}

static inline void take(const uint8_t *frame, uint32_t kept, uint32_t length, uint64_t time, int batched) {
    packets++;
    wire_octets += length;
    if (kept < 34) { others++; return; }
    const uint8_t *network = frame + 14;
    uint16_t kind = be16(frame + 12);
    while (kind == 0x8100 || kind == 0x88a8) { kind = be16(network + 2); network += 4; }
    struct packet *p = &queue[batched ? queued : 0];
    uint64_t source[2], target[2];
    if (kind == 0x0800) {
        uint32_t header = (network[0] & 15) * 4;
        source[0] = le32(network + 12), source[1] = 0;
        target[0] = le32(network + 16), target[1] = 0;
        p->key.protocol = network[9];
        p->transport = network + header;
        p->transport_length = be16(network + 2) - header;
    } else if (kind == 0x86dd && kept >= 54) {
        source[0] = raw64(network + 8), source[1] = raw64(network + 16);
        target[0] = raw64(network + 24), target[1] = raw64(network + 32);
        p->key.protocol = network[6];
        p->transport = network + 40;
        p->transport_length = be16(network + 4);
    } else { others++; return; }
    p->is_tcp = p->key.protocol == 6;
    tcp_packets += p->is_tcp;
    uint32_t sport = 0, dport = 0;
    if (p->is_tcp || p->key.protocol == 17) sport = be16(p->transport), dport = be16(p->transport + 2);
    int swap = source[0] != target[0] ? source[0] > target[0] : source[1] != target[1] ? source[1] > target[1] : sport > dport;
    const uint64_t *low = swap ? target : source, *high = swap ? source : target;
    p->key.low[0] = low[0], p->key.low[1] = low[1];
    p->key.high[0] = high[0], p->key.high[1] = high[1];
    p->key.ports = swap ? dport << 16 | sport : sport << 16 | dport;
    p->direction = swap;
    p->time = time;
    p->wire_length = length;
    p->hash = hash_of(&p->key);
    if (!batched) { update(find(&p->key, p->hash, time), p); return; }
    __builtin_prefetch(&buckets[p->hash & mask]);
    if (++queued == BATCH) drain();
}

/* Go through the whole records in [p, end); returns where the first incomplete one starts. */
static const uint8_t *walk(const uint8_t *p, const uint8_t *end, uint64_t scale, int batched) {
    while (end - p >= 16) {
        uint32_t kept = le32(p + 8);
        if (kept > (uint64_t)(end - p - 16)) break;
        take(p + 16, kept, le32(p + 12), le32(p) * 1000000000ull + le32(p + 4) * scale, batched);
        p += 16 + kept;
    }
    if (batched) drain();
    return p;
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: floor FILE plain|batched [map|read]\n"); return 2; }
    int batched = strcmp(argv[2], "batched") == 0, reading = argc > 3 && strcmp(argv[3], "read") == 0;
    int file = open(argv[1], O_RDONLY);
    struct stat status;
    uint8_t head[24];
    if (file < 0 || fstat(file, &status) < 0 || pread(file, head, 24, 0) != 24) { perror(argv[1]); return 1; }
    uint32_t magic = le32(head);
    if (magic != 0xa1b2c3d4 && magic != 0xa1b23c4d) { fprintf(stderr, "floor: not a little-endian pcap\n"); return 1; }
    uint64_t scale = magic == 0xa1b23c4d ? 1 : 1000;
    buckets = reserve((mask + 1) * 8, 0);
    flows = reserve((size_t)8 << 30, batched);
    if (reading) {
        uint8_t *buffer = malloc(2 * READ_CHUNK + LONGEST);
        size_t held = 0;
        lseek(file, 24, SEEK_SET);
        for (ssize_t got; (got = read(file, buffer + held, READ_CHUNK)) > 0;) {
            const uint8_t *rest = walk(buffer, buffer + held + got, scale, batched);
            held = buffer + held + got - rest;
            memmove(buffer, rest, held);
        }
    } else {
        uint8_t *map = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (map == MAP_FAILED) { perror("mmap"); return 1; }
        madvise(map, status.st_size, MADV_SEQUENTIAL);
        walk(map + 24, map + status.st_size, scale, batched);
    }
    printf("{\"packets\": %lu, \"octets\": %lu, \"tcp\": %lu, \"others\": %lu, \"flows\": %lu, \"retransmissions\": %lu}\n",
           packets, wire_octets, tcp_packets, others, flow_count, retransmissions);
    return 0;
}
