//! The whole pipeline under a simulated clock.

use serde_json::{Value, json};

use super::*;
use crate::packet::craft;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;
const S: u64 = 1_000_000_000;

/// A direction with its pool and everything that became of its packets.
struct Bench {
    direction: Direction,
    pool: Pool,
    fates: Vec<Record>,
    frames: Vec<Vec<u8>>,
}

impl Bench {
    fn new(settings: Value, seed: u64) -> Self {
        Self::with_capacity(settings, seed, 20_000)
    }

    fn with_capacity(settings: Value, seed: u64, capacity: usize) -> Self {
        let settings = parse(settings);
        Self {
            direction: Direction::new(0, seed, settings, 0, 100 * US, capacity),
            pool: Pool::new(capacity, 2048),
            fates: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn arrive(&mut self, now: u64, frame: &[u8]) {
        let slot = self.pool.take().unwrap();
        self.pool.buffer(slot)[..frame.len()].copy_from_slice(frame);
        self.pool.meta_mut(slot).len = frame.len() as u32;
        self.direction.arrive(now, slot, &mut self.pool, &mut self.fates);
    }

    /// Let time pass up to `until`, sending everything exactly when it is due.
    fn run(&mut self, until: u64) {
        while let Some(due) = self.direction.next_due().filter(|&due| due <= until) {
            while let Some(slot) = self.direction.pop(due, &mut self.pool, &mut self.fates) {
                self.frames.push(self.pool.frame(slot).to_vec());
                self.direction.delivered(due, slot, &mut self.pool, &mut self.fates);
            }
        }
    }

    fn delivered(&self) -> Vec<&Record> {
        self.fates.iter().filter(|r| r.verdict == Verdict::Delivered).collect()
    }

    fn order(&self) -> Vec<u64> {
        self.delivered().iter().map(|r| r.index).collect()
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.fates.iter().filter(|r| r.verdict == verdict).count()
    }
}

fn parse(settings: Value) -> Settings {
    Settings::parse(&settings, "a_to_b", 1500).unwrap()
}

fn full() -> Vec<u8> {
    craft::tcp(1, 0x18, 0, 1460)
}

/// `n` full packets, one each `gap` ns.
fn steady(settings: Value, seed: u64, n: u64, gap: u64) -> Bench {
    let mut bench = Bench::new(settings, seed);
    for i in 0..n {
        bench.run(i * gap);
        bench.arrive(i * gap, &full());
    }
    bench.run(u64::MAX);
    assert_eq!(bench.pool.free(), bench.pool.capacity(), "every buffer came back");
    bench
}

#[test]
fn a_plain_link_delivers_at_once_and_a_delay_is_exact() {
    let bench = steady(json!({}), 1, 100, MS);
    assert!(bench.delivered().iter().all(|r| r.departure_ns == r.arrival_ns && r.late_ns == 0));
    let bench = steady(json!({"delay_ns": 12_345_678}), 1, 100, MS);
    assert_eq!(bench.delivered().len(), 100);
    assert!(bench.delivered().iter().all(|r| r.departure_ns - r.arrival_ns == 12_345_678));
}

#[test]
fn serialisation_and_delay_add_up() {
    // 1514 octets at 10 Mbit/s take 1.2112 ms; packets come every 2 ms, so none waits.
    let bench = steady(json!({"delay_ns": 5 * MS, "rate": {"bits_per_second": 10_000_000}}), 1, 50, 2 * MS);
    assert!(bench.delivered().iter().all(|r| r.departure_ns - r.arrival_ns == 5 * MS + 1_211_200));
}

#[test]
fn a_saturated_rate_is_exact_and_the_queue_limit_holds() {
    let settings =
        json!({"rate": {"bits_per_second": 10_000_000}, "queue": {"kind": "pfifo", "packets": 20}});
    let bench = steady(settings, 1, 5000, MS / 2);
    let delivered = bench.delivered();
    let span = delivered.last().unwrap().departure_ns - delivered[0].departure_ns;
    assert_eq!(span, (delivered.len() as u64 - 1) * 1_211_200);
    assert_eq!(bench.count(Verdict::Queue) + delivered.len(), 5000);
    assert_eq!(bench.direction.counters.peak_backlog.0, 20);
    // A packet that waits behind 20 others and one in service.
    let worst = delivered.iter().map(|r| r.departure_ns - r.arrival_ns).max().unwrap();
    assert!(worst <= 22 * 1_211_200 && worst > 21 * 1_211_200 - MS / 2, "{worst}");
}

#[test]
fn being_called_late_does_not_slow_the_link_down() {
    let settings = json!({"rate": {"bits_per_second": 12_112_000}});
    let mut bench = Bench::new(settings, 1);
    for _ in 0..10 {
        bench.arrive(0, &full());
    }
    // Nobody asks for 100 ms; every packet was due at its own millisecond.
    let mut due = Vec::new();
    while let Some(slot) = bench.direction.pop(100 * MS, &mut bench.pool, &mut bench.fates) {
        due.push(bench.pool.meta(slot).due_ns / MS);
        bench.direction.delivered(100 * MS, slot, &mut bench.pool, &mut bench.fates);
    }
    assert_eq!(due, (1..=10).collect::<Vec<u64>>());
    assert_eq!(bench.direction.counters.late, 10);
    assert_eq!(bench.direction.counters.lateness.max(), 99 * MS);
}

#[test]
fn a_token_bucket_bursts_and_then_paces() {
    let settings = json!({"rate": {"bits_per_second": 12_112_000, "burst_bytes": 1514 * 5}});
    let mut bench = Bench::new(settings, 1);
    for _ in 0..8 {
        bench.arrive(0, &full());
    }
    bench.run(u64::MAX);
    let times: Vec<u64> = bench.delivered().iter().map(|r| r.departure_ns / MS).collect();
    assert_eq!(times, [0, 0, 0, 0, 0, 1, 2, 3]);
}

#[test]
fn a_trace_paces_by_its_opportunities() {
    let mut bench = Bench::new(json!({"trace": {"ms": [3, 3, 10]}}), 1);
    for _ in 0..5 {
        bench.arrive(0, &full());
    }
    bench.run(u64::MAX);
    let times: Vec<u64> = bench.delivered().iter().map(|r| r.departure_ns / MS).collect();
    assert_eq!(times, [3, 3, 10, 13, 13]);
}

#[test]
fn jitter_keeps_the_order_unless_told_otherwise() {
    let jitter = |reorders| json!({"delay_ns": 20 * MS, "jitter": {"ns": 5 * MS, "reorders": reorders}});
    let bench = steady(jitter(false), 1, 2000, MS);
    assert!(bench.order().is_sorted());
    let bench = steady(jitter(true), 1, 2000, MS);
    assert!(!bench.order().is_sorted());
    let delays: Vec<f64> =
        bench.delivered().iter().map(|r| (r.departure_ns - r.arrival_ns) as f64 / 1e6).collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((mean - 20.0).abs() < 0.3 && delays.iter().all(|d| (15.0..=25.0).contains(d)));
}

#[test]
fn reordered_packets_overtake_or_fall_back() {
    let ahead = steady(json!({"delay_ns": 5 * MS, "reorder": {"rate": 1.0, "gap": 10}}), 1, 100, MS);
    let early: Vec<u64> =
        ahead.delivered().iter().filter(|r| r.departure_ns == r.arrival_ns).map(|r| r.index).collect();
    assert_eq!(early, (0..10).map(|i| i * 10 + 9).collect::<Vec<u64>>());
    assert!(!ahead.order().is_sorted());
    let held = steady(json!({"reorder": {"rate": 1.0, "gap": 10, "hold_ns": 2_500_000}}), 1, 100, MS);
    assert_eq!(held.order()[8..13], [8, 10, 11, 9, 12]);
    assert_eq!(held.direction.counters.reordered, 10);
}

#[test]
fn a_lost_packet_has_used_the_link() {
    let settings =
        json!({"rate": {"bits_per_second": 12_112_000}, "drop": [{"match": "any", "nth": [1, 2]}]});
    let mut bench = Bench::new(settings, 1);
    (0..3).for_each(|_| bench.arrive(0, &full()));
    bench.run(u64::MAX);
    let fates: Vec<_> = bench.fates.iter().map(|r| (r.verdict, r.departure_ns / MS)).collect();
    assert_eq!(fates, [(Verdict::Exact, 1), (Verdict::Exact, 2), (Verdict::Delivered, 3)]);
}

#[test]
fn loss_with_ecn_marks_what_can_be_marked() {
    let mut bench = Bench::new(json!({"loss": {"rate": 1.0, "ecn": true}}), 1);
    bench.arrive(0, &craft::tcp_ecn(1, 0x18, 0, 10, 2));
    bench.arrive(0, &craft::tcp_ecn(1, 0x18, 0, 10, 0));
    bench.run(u64::MAX);
    assert_eq!((bench.count(Verdict::Delivered), bench.count(Verdict::Loss)), (1, 1));
    assert_eq!(bench.frames[0][15] & 3, 3);
}

#[test]
fn a_limit_without_a_rate_bounds_what_is_under_way() {
    let mut bench = Bench::new(json!({"delay_ns": MS, "limit": 10}), 1);
    (0..15).for_each(|i| bench.arrive(i, &full()));
    bench.run(u64::MAX);
    assert_eq!((bench.count(Verdict::Delivered), bench.count(Verdict::Queue)), (10, 5));
}

#[test]
fn a_direction_may_have_its_own_seed() {
    let lost = |seed: Value, link_seed| {
        let bench = steady(json!({"loss": {"rate": 0.1}, "seed": seed}), link_seed, 500, MS);
        bench.fates.iter().filter(|r| r.verdict == Verdict::Loss).map(|r| r.index).collect::<Vec<u64>>()
    };
    assert_eq!(lost(json!(5), 1), lost(json!(5), 2));
    assert_ne!(lost(Value::Null, 1), lost(Value::Null, 2));
    assert_eq!(lost(json!(5), 1), lost(Value::Null, 5));
}

#[test]
fn copies_follow_their_original() {
    let bench = steady(json!({"duplicate": {"rate": 0.5}, "delay_ns": MS}), 4, 1000, MS);
    let copies = bench.delivered().iter().filter(|r| r.flags & COPY != 0).count();
    assert!((430..570).contains(&copies), "{copies}");
    assert_eq!(bench.delivered().len(), 1000 + copies);
    for pair in bench.delivered().windows(2).filter(|pair| pair[1].flags & COPY != 0) {
        assert!(pair[0].index == pair[1].index && pair[0].flags & DUPLICATED != 0);
    }
}

#[test]
fn a_corrupted_packet_differs_in_the_bit_the_journal_names() {
    let bench = steady(json!({"corrupt": {"rate": 0.2}}), 4, 500, MS);
    let clean = full();
    for (record, frame) in bench.delivered().iter().zip(&bench.frames) {
        let flipped: Vec<u32> = (0..clean.len() as u32 * 8)
            .filter(|bit| (clean[*bit as usize / 8] ^ frame[*bit as usize / 8]) >> (7 - bit % 8) & 1 == 1)
            .collect();
        if record.flags & CORRUPTED != 0 {
            assert_eq!(flipped, [record.corrupt_bit]);
        } else {
            assert!(flipped.is_empty() && record.corrupt_bit == u32::MAX);
        }
    }
    assert!((60..140).contains(&(bench.direction.counters.corrupted as usize)));
}

/// Everything at once, over traffic that is not all alike.
fn busy(seed: u64) -> Bench {
    let settings = json!({
        "delay_ns": 10 * MS, "jitter": {"ns": 2 * MS, "distribution": "pareto", "correlation": 0.3, "reorders": true},
        "loss": {"gilbert_elliott": {"p": 0.02, "r": 0.3}}, "drop": [{"match": "tcp-data", "nth": [5, 9]}],
        "reorder": {"rate": 0.01}, "duplicate": {"rate": 0.02}, "corrupt": {"rate": 0.01},
        "rate": {"bits_per_second": 14_000_000}, "queue": {"kind": "fq_codel", "packets": 100},
    });
    let mut bench = Bench::new(settings, seed);
    for i in 0..20_000u64 {
        let now = i * 400 * US;
        bench.run(now);
        let frame = match i % 5 {
            0 => craft::udp((i % 3) as u16, 100),
            n => craft::tcp(n as u16, 0x18, i as u32, 1000),
        };
        bench.arrive(now, &frame);
    }
    bench.run(u64::MAX);
    bench
}

#[test]
fn the_same_seed_gives_a_byte_identical_journal_and_another_seed_another() {
    let journal = |seed| busy(seed).fates.iter().flat_map(Record::encode).collect::<Vec<u8>>();
    let first = journal(7);
    assert_eq!(first, journal(7));
    assert_ne!(first, journal(8));
}

#[test]
fn every_packet_has_exactly_one_fate() {
    let bench = busy(7);
    let mut originals: Vec<u64> =
        bench.fates.iter().filter(|r| r.flags & COPY == 0).map(|r| r.index).collect();
    originals.sort_unstable();
    assert_eq!(originals, (0..20_000).collect::<Vec<u64>>());
    for verdict in [Verdict::Loss, Verdict::Exact, Verdict::Codel] {
        assert!(bench.count(verdict) > 0, "{verdict:?}");
    }
    assert_eq!(bench.count(Verdict::Exact), 2);
    assert_eq!(bench.pool.free(), bench.pool.capacity());
}

#[test]
fn decisions_do_not_depend_on_timing_or_on_other_impairments() {
    let lost = |settings, gap| {
        let bench = steady(settings, 7, 2000, gap);
        bench.fates.iter().filter(|r| r.verdict == Verdict::Loss).map(|r| r.index).collect::<Vec<u64>>()
    };
    let alone = lost(json!({"loss": {"rate": 0.05}}), MS);
    assert_eq!(alone, lost(json!({"loss": {"rate": 0.05}}), 3 * US));
    let company = json!({"loss": {"rate": 0.05}, "delay_ns": MS, "jitter": {"ns": US}, "duplicate": {"rate": 0.5},
        "corrupt": {"rate": 0.5}, "reorder": {"rate": 0.5}});
    assert_eq!(alone, lost(company, MS));
}

#[test]
fn chatter_does_not_shift_the_fate_of_traffic() {
    let lost = |noisy: bool| {
        let mut bench = Bench::new(json!({"loss": {"rate": 0.1}}), 7);
        let mut arp = vec![0u8; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        for i in 0..1000 {
            if noisy && i % 7 == 3 {
                bench.arrive(i * MS, &arp);
            }
            bench.arrive(i * MS, &full());
            bench.run(i * MS);
        }
        let of = |r: &&Record| r.verdict == Verdict::Loss && r.flags & CHATTER == 0;
        bench.fates.iter().filter(of).map(|r| r.index).collect::<Vec<u64>>()
    };
    assert_eq!(lost(false), lost(true));
}

#[test]
fn an_outage_stops_chatter_too() {
    let mut bench = Bench::new(json!({"loss": {"rate": 1.0}}), 7);
    let mut arp = vec![0u8; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    bench.arrive(0, &arp);
    assert_eq!(bench.count(Verdict::Loss), 1);
}

#[test]
fn replacing_settings_loses_nothing() {
    let slow = json!({"delay_ns": 50 * MS, "rate": {"bits_per_second": 1_000_000}, "queue": {"kind": "pfifo", "packets": 500}});
    for next in [
        json!({}),
        json!({"delay_ns": MS}),
        json!({"rate": {"bits_per_second": 10_000_000}}),
        json!({"rate": {"bits_per_second": 1_000_000}, "queue": {"kind": "pfifo", "packets": 5}}),
        json!({"rate": {"bits_per_second": 10_000_000, "burst_bytes": 3000}, "queue": {"kind": "bfifo", "bytes": 9000}}),
        json!({"rate": {"bits_per_second": 10_000_000}, "queue": {"kind": "fq_codel", "target_ns": S, "interval_ns": 2 * S}}),
        json!({"trace": {"ms": [1]}}),
    ] {
        let mut bench = Bench::new(slow.clone(), 1);
        for i in 0..300 {
            bench.arrive(i * US, &full());
        }
        bench.run(200 * MS);
        let before = bench.delivered().len();
        assert!((5..50).contains(&before));
        bench.direction.replace(parse(next.clone()), 200 * MS, &mut bench.pool, &mut bench.fates);
        bench.run(u64::MAX);
        assert_eq!(bench.order(), (0..300).collect::<Vec<u64>>(), "{next}");
    }
}

#[test]
fn a_faster_rate_shortens_the_packet_being_sent() {
    let mut bench = Bench::new(json!({"rate": {"bits_per_second": 1000}}), 1);
    bench.arrive(0, &full()); // would take 12.112 s
    bench.run(MS);
    bench.direction.replace(
        parse(json!({"rate": {"bits_per_second": 1_000_000}})),
        MS,
        &mut bench.pool,
        &mut bench.fates,
    );
    bench.run(u64::MAX);
    assert_eq!(bench.delivered()[0].departure_ns, MS + (12_112 * MS - MS) / 1000);
}

#[test]
fn replacing_settings_keeps_counts_and_draws() {
    let mut changed = Bench::new(json!({"loss": {"rate": 0.1}, "drop": [{"match": "any", "nth": [150]}]}), 7);
    let plain = steady(json!({"loss": {"rate": 0.1}, "drop": [{"match": "any", "nth": [150]}]}), 7, 300, MS);
    for i in 0..300u64 {
        if i % 50 == 0 {
            let next =
                json!({"loss": {"rate": 0.1}, "drop": [{"match": "any", "nth": [150]}], "delay_ns": i * US});
            changed.direction.replace(parse(next), i * MS, &mut changed.pool, &mut changed.fates);
        }
        changed.arrive(i * MS, &full());
    }
    let lost = |bench: &Bench| {
        let mut lost: Vec<u64> =
            bench.fates.iter().filter(|r| r.verdict != Verdict::Delivered).map(|r| r.index).collect();
        lost.sort_unstable();
        lost
    };
    assert_eq!(lost(&changed), lost(&plain));
    assert_eq!(changed.count(Verdict::Exact), 1);
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let mut bench = Bench::new(json!({"delay_ns": 100 * MS}), 1);
    bench.arrive(0, &full());
    bench.direction.replace(parse(json!({"delay_ns": 10 * MS})), 5 * MS, &mut bench.pool, &mut bench.fates);
    bench.arrive(6 * MS, &full());
    bench.run(u64::MAX);
    assert_eq!(bench.order(), [0, 1]);
    assert_eq!(bench.delivered()[1].departure_ns, 100 * MS);
}

#[test]
fn codel_holds_the_delay_of_an_overload_near_its_target() {
    let with = |queue| json!({"rate": {"bits_per_second": 10_000_000}, "queue": queue});
    let offered = |settings| {
        let mut bench = Bench::new(settings, 3);
        // 10 % more than the rate: a TCP that hardly yields.
        for i in 0..20_000u64 {
            let now = i * 1_100 * US;
            bench.run(now);
            bench.arrive(now, &full());
        }
        bench.run(u64::MAX);
        bench
    };
    let late = |bench: &Bench| {
        let all = bench.delivered();
        let tail = &all[all.len() / 2..];
        tail.iter().map(|r| r.departure_ns - r.arrival_ns).sum::<u64>() / tail.len() as u64 / MS
    };
    let codel = offered(with(json!({"kind": "codel"})));
    let fifo = offered(with(json!({"kind": "pfifo", "packets": 1000})));
    assert!(late(&fifo) > 1000, "{}", late(&fifo));
    assert!(late(&codel) < 60, "{}", late(&codel));
    assert_eq!(codel.count(Verdict::Queue), 0);
}

#[test]
fn fq_codel_protects_a_sparse_flow_from_a_bulk_one() {
    let run = |queue| {
        let mut bench = Bench::new(json!({"rate": {"bits_per_second": 10_000_000}, "queue": queue}), 3);
        for i in 0..5_000u64 {
            let now = i * 600 * US;
            bench.run(now);
            bench.arrive(now, &full());
            if i % 20 == 0 {
                bench.arrive(now, &craft::udp(9, 50));
            }
        }
        bench.run(u64::MAX);
        let sparse: Vec<u64> = bench
            .delivered()
            .iter()
            .filter(|r| r.digest.protocol == 17)
            .map(|r| r.departure_ns - r.arrival_ns)
            .collect();
        (sparse.len(), sparse.iter().max().copied().unwrap())
    };
    let (arrived, worst) = run(json!({"kind": "fq_codel"}));
    assert_eq!(arrived, 250);
    // One packet in service and at most the rest of the bulk flow's turn.
    assert!(worst < 3 * 1_211_200, "{worst}");
    assert!(run(json!({"kind": "pfifo", "packets": 100})).1 > 100 * MS);
}

#[test]
fn ecn_capable_packets_are_marked_not_dropped() {
    let settings = json!({"rate": {"bits_per_second": 10_000_000}, "queue": {"kind": "codel", "ecn": true}});
    let mut bench = Bench::new(settings, 3);
    for i in 0..2_000u64 {
        bench.run(i * MS);
        bench.arrive(i * MS, &craft::tcp_ecn(1, 0x18, 0, 1460, 2));
    }
    bench.run(u64::MAX);
    assert_eq!(bench.count(Verdict::Codel), 0);
    assert!(bench.direction.counters.marked > 10);
    let marked = bench.frames.iter().filter(|frame| frame[15] & 3 == 3).count() as u64;
    assert_eq!(marked, bench.direction.counters.marked);
    assert!(bench.frames.iter().all(|frame| craft::checksum(&frame[14..34]) == 0));
}

#[test]
fn what_has_not_left_at_the_end_is_recorded() {
    let rate = json!({"bits_per_second": 12_112_000});
    let mut bench =
        Bench::new(json!({"delay_ns": 20 * MS, "rate": rate, "reorder": {"rate": 0.2, "hold_ns": MS}}), 1);
    (0..50).for_each(|_| bench.arrive(0, &full()));
    bench.run(30 * MS);
    bench.direction.abandon(30 * MS, &mut bench.pool, &mut bench.fates);
    assert!(bench.count(Verdict::Delivered) > 5);
    assert_eq!(bench.count(Verdict::Delivered) + bench.count(Verdict::Unfinished), 50);
    assert_eq!(bench.pool.free(), bench.pool.capacity());
}

#[test]
fn a_full_pool_is_an_overflow_not_a_crash() {
    let mut bench = Bench::with_capacity(json!({"delay_ns": S}), 1, RESERVE + 50);
    for i in 0..200 {
        bench.arrive(i, &full());
    }
    bench.run(u64::MAX);
    assert_eq!(bench.count(Verdict::Overflow) + bench.delivered().len(), 200);
    assert!((49..=51).contains(&bench.delivered().len()), "{}", bench.delivered().len());
}
