//! The corners of the rules that real captures barely touch, each on a capture of a few packets.

#![allow(clippy::unwrap_used)] // helpers of tests may fail the test

use netlab_capture::engine::{self, Options, Semantics};
use netlab_capture::segments::Row;
use netlab_capture::shard::{Keep, Wanted};
use netlab_capture::tcp::analysis as a;

const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;
const MS: i64 = 1_000_000;

/// Time in ns, from the client?, flags, seq, ack, payload, window.
type Line = (i64, bool, u16, u32, u32, usize, u16);

fn capture(script: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_3c4du32, 0x0004_0002, 0, 0, 262_144, 101] {
        out.extend(word.to_le_bytes());
    }
    for &(ts, client, flags, seq, ack, payload, window) in script {
        let mut packet = vec![0x45, 0];
        packet.extend((40 + payload as u16).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        let (ends, ports) = ([[10u8, 0, 0, 1], [10, 0, 0, 2]], [5000u16, 80]);
        let order = if client { [0, 1] } else { [1, 0] };
        order.iter().for_each(|&i| packet.extend(ends[i]));
        order.iter().for_each(|&i| packet.extend(ports[i].to_be_bytes()));
        packet.extend(seq.to_be_bytes());
        packet.extend(ack.to_be_bytes());
        packet.extend((5 << 12 | flags).to_be_bytes());
        packet.extend(window.to_be_bytes());
        packet.extend([0; 4]);
        packet.resize(40 + payload, 1);
        for word in [
            (ts / 1_000_000_000) as u32,
            (ts % 1_000_000_000) as u32,
            packet.len() as u32,
            packet.len() as u32,
        ] {
            out.extend(word.to_le_bytes());
        }
        out.extend(packet);
    }
    out
}

fn rows(script: &[Line], rules: Semantics) -> Vec<Row> {
    let options =
        Options { rules, keep: Keep { segments: Wanted::All, ..Keep::default() }, ..Options::default() };
    engine::summarize_bytes(&capture(script), &options).unwrap().segments().unwrap().to_vec()
}

fn flags(script: &[Line]) -> Vec<u32> {
    rows(script, Semantics::V40).iter().map(|row| row.verdict.flags).collect()
}

#[test]
fn the_duplicate_counter_is_unsigned() {
    // Rule 11 sets it to "-1", which rule 12b reads as more than two duplicates.
    let script = [
        (1_000 * MS, true, ACK, 1000, 500, 100, 100),
        (1_001 * MS, false, ACK, 500, 9000, 0, 100), // acknowledges what was never seen, twice
        (1_002 * MS, false, ACK, 500, 9001, 0, 100),
        (1_003 * MS, true, ACK, 20_000, 500, 100, 100),
        (1_030 * MS, false, ACK, 500, 15_000, 0, 100),
        (1_040 * MS, true, ACK, 15_000, 500, 100, 100),
    ];
    let found = flags(&script);
    assert_eq!(found[1] & a::ACK_LOST_SEGMENT, a::ACK_LOST_SEGMENT);
    assert_eq!(found[5] & a::FAST_RETRANSMISSION, 0, "the counter is reset by a new acknowledgement");
}

#[test]
fn a_syn_at_the_epoch_is_no_syn_for_the_initial_rtt() {
    let at = |start: i64| {
        [
            (start, true, SYN, 1, 0, 0, 100),
            (start + MS, false, SYN | ACK, 1, 2, 0, 100),
            (start + 2 * MS, true, ACK, 2, 2, 0, 100),
        ]
    };
    assert_eq!(rows(&at(0), Semantics::V40)[2].initial_rtt, 0);
    assert_eq!(rows(&at(1), Semantics::V40)[2].initial_rtt, 2 * MS);
}

#[test]
fn a_packet_stamped_too_early_is_very_late() {
    // 1 ms after the segment it repeats: out of order. 1 ms before it: a retransmission.
    for (now, kind) in [(1_003 * MS, a::OUT_OF_ORDER), (1_001 * MS, a::RETRANSMISSION)] {
        let script = [
            (1_000 * MS, true, ACK, 100, 1, 10, 50),
            (1_001 * MS, true, ACK, 110, 1, 10, 50),
            (1_002 * MS, true, ACK, 120, 1, 10, 50),
            (now, true, ACK, 110, 1, 10, 50),
        ];
        assert_eq!(flags(&script)[3], kind);
    }
}

#[test]
fn ten_thousand_segments_are_listed_and_no_more() {
    let mut script: Vec<Line> =
        (0..10_005u32).map(|i| (1_000 * MS + i64::from(i), true, ACK, 1 + i * 10, 1, 10, 50)).collect();
    script.push((2_000 * MS, false, ACK, 1, 1 + 10_000 * 10, 0, 50));
    script.push((2_001 * MS, false, ACK, 1, 1 + 10_003 * 10, 0, 50));
    let rows = rows(&script, Semantics::V40);
    assert_eq!(rows[9_999].verdict.in_flight, 100_000);
    assert_eq!(rows[10_004].verdict.in_flight, 100_000);
    assert_eq!(rows[10_005].verdict.acks_frame, Some(10_000));
    assert_eq!(rows[10_006].verdict.acks_frame, None);
}

#[test]
fn a_closed_window_is_probed_and_answered() {
    let script = [
        (1_000 * MS, true, ACK, 100, 1, 10, 50),
        (1_001 * MS, false, ACK, 1, 110, 0, 0),
        (1_400 * MS, true, ACK, 110, 1, 1, 50),
        (1_401 * MS, false, ACK, 1, 110, 0, 0),
        (1_500 * MS, false, ACK, 1, 110, 0, 70),
        (1_501 * MS, true, ACK, 110, 1, 10, 50),
    ];
    let found = flags(&script);
    assert_eq!(found[1], a::ZERO_WINDOW);
    assert_eq!(found[2], a::ZERO_WINDOW_PROBE);
    assert_eq!(found[3], a::ZERO_WINDOW | a::ZERO_WINDOW_PROBE_ACK);
    assert_eq!(found[4], a::WINDOW_UPDATE);
    assert_eq!(found[5], 0, "the probe did not move what is expected next");
}

#[test]
fn later_releases_take_the_answer_to_a_probe_that_was_accepted() {
    let script = [
        (1_000 * MS, true, ACK, 100, 1, 10, 50),
        (1_001 * MS, false, ACK, 1, 110, 0, 0),
        (1_400 * MS, true, ACK, 110, 1, 1, 50),
        (1_401 * MS, false, ACK, 1, 111, 0, 0),
        (1_402 * MS, true, ACK, 111, 1, 10, 50),
    ];
    let of = |rules| rows(&script, rules).iter().map(|row| row.verdict.flags).collect::<Vec<_>>();
    assert_ne!(of(Semantics::V40)[3] & a::ACK_LOST_SEGMENT, 0);
    let later = of(Semantics::V44);
    assert_eq!(later[3], a::ZERO_WINDOW | a::ZERO_WINDOW_PROBE_ACK);
    assert_eq!(later[4] & a::LOST_SEGMENT, 0);
}

#[test]
fn a_syn_with_another_number_opens_a_stream_and_a_syn_ack_does_not() {
    let script = [
        (1_000 * MS, true, SYN, 1, 0, 0, 100),
        (1_001 * MS, false, SYN | ACK, 7, 2, 0, 100),
        (1_002 * MS, false, SYN | ACK, 9, 2, 0, 100),
        (1_003 * MS, true, RST, 2, 0, 0, 100),
        (1_004 * MS, true, SYN, 50, 0, 0, 100),
        (1_005 * MS, true, SYN, 50, 0, 0, 100),
    ];
    let rows40 = rows(&script, Semantics::V40);
    assert_eq!(rows40.iter().map(|row| row.stream).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1]);
    assert_eq!(rows40[2].verdict.flags & a::REUSED_PORTS, a::REUSED_PORTS);
    assert_eq!(rows40[4].verdict.flags, a::REUSED_PORTS);
    assert_eq!(
        rows40[5].verdict.flags,
        a::RETRANSMISSION | if rows40[5].verdict.rto == MS { 0 } else { 1 << 31 }
    );
    assert_eq!(rows(&script, Semantics::V44).iter().map(|row| row.stream).max(), Some(2));
}

#[test]
fn sequence_numbers_and_times_at_their_limits_end_well() {
    let mut script: Vec<Line> = Vec::new();
    for i in 0..40u32 {
        let wild = i.wrapping_mul(0x9e37_79b9);
        let ts = i64::from(wild) * 1_000_000_000;
        script.push((
            ts,
            i % 3 == 0,
            (wild >> 20) as u16 & 0x3f,
            wild,
            wild.rotate_left(7),
            (i % 5) as usize,
            wild as u16,
        ));
    }
    for rules in [Semantics::V40, Semantics::V44] {
        assert_eq!(rows(&script, rules).len(), 40);
    }
}
