//! Properties of the whole pipeline: the answer does not depend on how the bytes arrive, on chunks,
//! threads or the container, and every prefix of a capture has one.

#![allow(clippy::unwrap_used)] // helpers of tests may fail the test

use std::io::Read;

use netlab_capture::engine::{self, Options, Semantics};
use netlab_capture::reader::Interface;
use netlab_capture::shard::{Keep, Wanted};
use netlab_capture::source::{Source, Stream};
use netlab_capture::table::Value;
use netlab_capture::writer::Writer;
use netlab_capture::{Summary, schema};
use proptest::prelude::*;

/// One packet of a generated capture.
#[derive(Clone, Debug)]
struct Sent {
    flow: u8,
    reversed: bool,
    seq: u32,
    ack: u32,
    flags: u8,
    len: u16,
    window: u16,
    options: u8,
    kind: u8,
    wait_us: i32,
}

fn checksum_free_ipv4(
    proto: u8,
    source: [u8; 4],
    destination: [u8; 4],
    id: u16,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    ip.extend_from_slice(&id.to_be_bytes());
    ip.extend_from_slice(&fragment.to_be_bytes());
    ip.extend_from_slice(&[64, proto, 0, 0]);
    ip.extend_from_slice(&source);
    ip.extend_from_slice(&destination);
    ip.extend_from_slice(payload);
    ip
}

fn tcp(sent: &Sent, ports: [u16; 2]) -> Vec<u8> {
    let options: &[u8] = match sent.options {
        0 => &[],
        1 => &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        2 => &[2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1],
        3 => &[1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 99],
        _ => &[30, 4, 0x20, 0, 5, 200, 1, 1],
    };
    let mut out = Vec::new();
    out.extend_from_slice(&ports[0].to_be_bytes());
    out.extend_from_slice(&ports[1].to_be_bytes());
    out.extend_from_slice(&sent.seq.to_be_bytes());
    out.extend_from_slice(&sent.ack.to_be_bytes());
    out.extend_from_slice(&[((20 + options.len()) as u8 / 4) << 4, sent.flags]);
    out.extend_from_slice(&sent.window.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(options);
    out.resize(out.len() + usize::from(sent.len), 7);
    out
}

fn frames(sent: &Sent, serial: u16) -> Vec<Vec<u8>> {
    let (client, server) = ([10, 0, 0, sent.flow], [10, 1, 0, 1]);
    let port = 1000 + u16::from(sent.flow);
    let (source, destination, ports) =
        if sent.reversed { (server, client, [80, port]) } else { (client, server, [port, 80]) };
    let segment = tcp(sent, ports);
    let mut datagrams = match sent.kind {
        0..=5 => vec![checksum_free_ipv4(6, source, destination, serial, 0, &segment)],
        6 => {
            let mut udp = vec![];
            for port in ports {
                udp.extend_from_slice(&port.to_be_bytes());
            }
            udp.extend_from_slice(&(8 + sent.len).to_be_bytes());
            udp.extend_from_slice(&[0, 0]);
            udp.resize(8 + usize::from(sent.len), 1);
            vec![checksum_free_ipv4(17, source, destination, serial, 0, &udp)]
        }
        7 => {
            let at = (segment.len() / 2) & !7;
            vec![
                checksum_free_ipv4(6, source, destination, serial, (at / 8) as u16, &segment[at..]),
                checksum_free_ipv4(6, source, destination, serial, 0x2000, &segment[..at]),
            ]
        }
        8 => {
            let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 0];
            icmp.extend(checksum_free_ipv4(6, source, destination, serial, 0, &segment[..20]));
            vec![checksum_free_ipv4(1, destination, source, serial, 0, &icmp)]
        }
        _ => {
            let inner = checksum_free_ipv4(6, source, destination, serial, 0, &segment);
            vec![checksum_free_ipv4(4, [192, 0, 2, 1], [192, 0, 2, 2], serial, 0, &inner)]
        }
    };
    for datagram in &mut datagrams {
        datagram.splice(0..0, [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    }
    datagrams
}

fn sent() -> impl Strategy<Value = Sent> {
    let flags = prop_oneof![6 => Just(16u8), 2 => Just(24), 1 => Just(2), 1 => Just(18), 1 => Just(17), 1 => Just(4), 1 => any::<u8>()];
    (0u8..6, any::<bool>(), 0u32..40, 0u32..40, flags, 0u16..3, 0u16..3, 0u8..5, 0u8..10, -200i32..4000)
        .prop_map(|(flow, reversed, seq, ack, flags, len, window, options, kind, wait_us)| Sent {
            flow,
            reversed,
            seq: (u32::MAX - 1000).wrapping_add(seq * 100),
            ack: (u32::MAX - 1000).wrapping_add(ack * 100),
            flags,
            len: len * 100,
            window: window * 300,
            options,
            kind,
            wait_us,
        })
}

/// Connections as they usually go, with something unusual now and then.
fn conversations() -> impl Strategy<Value = Vec<Sent>> {
    let step = (0u8..3, any::<bool>(), 0u8..60, 1u16..4, -20i32..3000);
    (proptest::collection::vec(step, 1..300), any::<bool>()).prop_map(|(steps, opened)| {
        let mut next = [[u32::MAX - 5000, 70_000]; 3];
        let mut window = [[400u16; 2]; 3];
        let mut script = Vec::new();
        let quiet = Sent {
            flow: 0,
            reversed: false,
            seq: 0,
            ack: 0,
            flags: 16,
            len: 0,
            window: 400,
            options: 1,
            kind: 0,
            wait_us: 100,
        };
        for flow in (0..3).filter(|_| opened) {
            let [ours, theirs] = &mut next[usize::from(flow)];
            let syn = Sent { flow, seq: *ours, flags: 2, options: 2, ..quiet };
            *ours = ours.wrapping_add(1);
            script.push(syn);
            script.push(Sent {
                flow,
                reversed: true,
                seq: *theirs,
                ack: *ours,
                flags: 18,
                options: 2,
                ..quiet
            });
            *theirs = theirs.wrapping_add(1);
            script.push(Sent { flow, seq: *ours, ack: *theirs, ..quiet });
        }
        for (flow, reversed, action, size, wait_us) in steps {
            let (own, other) = (usize::from(reversed), usize::from(!reversed));
            let mine = &mut next[usize::from(flow)];
            let window = &mut window[usize::from(flow)][own];
            let mut sent = Sent { flow, reversed, seq: mine[own], ack: mine[other], wait_us, ..quiet };
            match action {
                0..=24 => sent.len = size * 100,
                25..=44 => {}
                45..=46 => sent.ack = sent.ack.wrapping_sub(u32::from(size) * 100),
                47..=48 => (sent.seq, sent.len) = (sent.seq.wrapping_sub(u32::from(size) * 100), 100),
                49 => (sent.seq, sent.len) = (sent.seq.wrapping_add(100), 100),
                50 => sent.seq = sent.seq.wrapping_sub(1),
                51 => *window = 0,
                52 => *window = 300 + size,
                53 => sent.options = 3,
                54 => sent.flags |= 64,
                55 => sent.options = 0,
                56 => sent.ack = sent.ack.wrapping_add(100),
                57 => sent.kind = 7,
                58 => (sent.len, sent.flags) = (1, 24),
                _ => sent.flags |= [1, 4, 2][usize::from(size) % 3],
            }
            sent.window = *window;
            let end = sent.seq.wrapping_add(u32::from(sent.len) + u32::from(sent.flags & 3 != 0));
            if (end.wrapping_sub(mine[own]) as i32) > 0 {
                mine[own] = end;
            }
            script.push(sent);
        }
        script
    })
}

fn packets(script: &[Sent]) -> Vec<(i64, Vec<u8>)> {
    let mut now = 1_700_000_000_000_000_000i64;
    let mut out = Vec::new();
    for (i, sent) in script.iter().enumerate() {
        now += i64::from(sent.wait_us) * 1000;
        out.extend(frames(sent, i as u16).into_iter().map(|frame| (now, frame)));
    }
    out
}

fn pcap(packets: &[(i64, Vec<u8>)], big_endian: bool, nanoseconds: bool) -> Vec<u8> {
    let word =
        |out: &mut Vec<u8>, n: u32| out.extend(if big_endian { n.to_be_bytes() } else { n.to_le_bytes() });
    let mut out = Vec::new();
    word(&mut out, if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
    word(&mut out, if big_endian { 0x0002_0004 } else { 0x0004_0002 });
    for n in [0, 0, 262_144, 1] {
        word(&mut out, n);
    }
    for (ts, data) in packets {
        let unit = if nanoseconds { 1 } else { 1000 };
        for n in [
            (ts / 1_000_000_000) as u32,
            (ts % 1_000_000_000 / unit) as u32,
            data.len() as u32,
            data.len() as u32,
        ] {
            word(&mut out, n);
        }
        out.extend_from_slice(data);
    }
    out
}

fn pcapng(packets: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out).unwrap();
    let interface =
        writer.interface(&Interface { link: 1, snaplen: 262_144, ..Interface::default() }).unwrap();
    for (ts, data) in packets {
        writer.packet(interface, *ts, data.len() as u32, data).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// Everything a summary says, comparable.
fn digest(summary: &Summary) -> (Vec<Vec<Value>>, Vec<Vec<Value>>, Vec<u64>) {
    let whole = |columns: Vec<netlab_capture::table::Column>| {
        columns.iter().map(|column| (0..column.len).map(|row| column.get(row)).collect()).collect()
    };
    let t = &summary.totals;
    let totals = vec![
        t.packets,
        t.bytes,
        t.captured_bytes,
        t.first_ns as u64,
        t.last_ns as u64,
        t.time_back,
        t.cut_packets,
    ];
    let sides = summary.originators();
    let segments = summary
        .segments()
        .map(|rows| schema::segment_columns(rows, &|stream| sides.get(&stream).copied().unwrap_or(0)));
    (
        whole(schema::flow_columns(summary, 0..summary.len(), None)),
        segments.map(whole).unwrap_or_default(),
        totals,
    )
}

fn options(threads: usize, chunk: u32) -> Options {
    Options { threads, chunk, keep: Keep { segments: Wanted::All, ..Keep::default() }, ..Options::default() }
}

/// Gives its bytes in pieces of the sizes asked for.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()];
        self.turn += 1;
        let n = size.min(into.len()).min(self.bytes.len() - self.at);
        into[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn through_pieces(bytes: Vec<u8>, sizes: Vec<usize>) -> Summary {
    let mut source = Source::Stream(Stream::new(Pieces { bytes, at: 0, sizes, turn: 0 }));
    engine::summarize_source(&mut source, &options(1, 256), &mut |_, _, _| true).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn chunks_threads_and_reads_change_nothing(script in proptest::collection::vec(sent(), 1..300),
                                               chunk in 1u32..500, threads in 2usize..5,
                                               sizes in proptest::collection::vec(1usize..700, 1..8)) {
        let bytes = pcap(&packets(&script), false, true);
        let plain = digest(&engine::summarize_bytes(&bytes, &options(1, 256)).unwrap());
        prop_assert_eq!(&plain, &digest(&engine::summarize_bytes(&bytes, &options(1, chunk)).unwrap()));
        prop_assert_eq!(&plain, &digest(&engine::summarize_bytes(&bytes, &options(threads, chunk)).unwrap()));
        prop_assert_eq!(&plain, &digest(&through_pieces(bytes, sizes)));
    }

    #[test]
    fn segments_kept_or_not_change_no_flow(script in proptest::collection::vec(sent(), 1..200)) {
        let bytes = pcap(&packets(&script), false, true);
        let with = engine::summarize_bytes(&bytes, &options(1, 64)).unwrap();
        let without = engine::summarize_bytes(&bytes, &Options::default()).unwrap();
        prop_assert_eq!(digest(&with).0, digest(&without).0);
    }

    /// Who wants the segment table always takes the long way through the rules; the others, nearly never.
    #[test]
    fn the_short_way_comes_to_the_same_as_the_long(script in conversations(), threads in 2usize..4) {
        let bytes = pcap(&packets(&script), false, true);
        let long = digest(&engine::summarize_bytes(&bytes, &options(1, 256)).unwrap()).0;
        for threads in [1, threads] {
            let options = Options { threads, ..Options::default() };
            prop_assert_eq!(&long, &digest(&engine::summarize_bytes(&bytes, &options).unwrap()).0);
        }
    }

    #[test]
    fn containers_change_nothing(script in proptest::collection::vec(sent(), 1..200)) {
        let packets = packets(&script);
        let plain = digest(&engine::summarize_bytes(&pcap(&packets, false, true), &options(1, 256)).unwrap());
        for bytes in [pcap(&packets, true, true), pcap(&packets, true, false), pcapng(&packets)] {
            prop_assert_eq!(&plain, &digest(&engine::summarize_bytes(&bytes, &options(1, 256)).unwrap()));
        }
    }

    #[test]
    fn every_prefix_summarizes_and_says_where_it_ends(script in proptest::collection::vec(sent(), 1..6), ng in any::<bool>()) {
        let packets = packets(&script);
        let bytes = if ng { pcapng(&packets) } else { pcap(&packets, false, true) };
        let mut most = 0;
        for end in 4..=bytes.len() {
            let summary = engine::summarize_bytes(&bytes[..end], &options(1, 256)).unwrap();
            let t = &summary.totals;
            prop_assert!(t.packets >= most);
            most = t.packets;
            prop_assert_eq!(t.truncated_at.is_some(), !t.warnings.is_empty());
            if let Some(at) = t.truncated_at {
                prop_assert!(at <= end as u64);
            }
        }
        prop_assert_eq!(most, packets.len() as u64);
    }

    #[test]
    fn any_bytes_end_well(bytes in proptest::collection::vec(any::<u8>(), 0..600), ng in any::<bool>(), link in 0u8..=255, threads in 1usize..3) {
        let mut file = if ng { pcapng(&[]) } else { pcap(&[], false, true) };
        if !ng {
            file[20] = link;
        }
        file.extend_from_slice(&bytes);
        engine::summarize_bytes(&file, &options(threads, 7)).unwrap();
        let _ = engine::summarize_bytes(&bytes, &options(1, 7));
    }

    #[test]
    fn damaged_packets_end_well(script in proptest::collection::vec(sent(), 1..40),
                                hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..30), later in any::<bool>()) {
        let mut bytes = pcap(&packets(&script), false, true);
        for (at, value) in hits {
            let at = 24 + usize::from(at) % (bytes.len() - 24).max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let mut options = options(1, 256);
        options.checksums = true;
        options.rules = if later { Semantics::V44 } else { Semantics::V40 };
        engine::summarize_bytes(&bytes, &options).unwrap();
    }

    #[test]
    fn a_cap_on_flows_keeps_the_totals(script in proptest::collection::vec(sent(), 1..200), cap in 1usize..6,
                                       threads in 2usize..5) {
        let bytes = pcap(&packets(&script), false, true);
        let whole = engine::summarize_bytes(&bytes, &Options::default()).unwrap();
        let keep = Keep { max_flows: Some(cap), ..Keep::default() };
        let options = Options { keep, ..Options::default() };
        let capped = engine::summarize_bytes(&bytes, &options).unwrap();
        // The cap is one for all shards together, so it forgets the same flows however many threads work.
        let shared = engine::summarize_bytes(&bytes, &Options { threads, ..options }).unwrap();
        prop_assert_eq!(digest(&capped), digest(&shared));
        prop_assert!(capped.len() <= cap);
        let sum = |s: &Summary| s.flows().map(|f| u64::from(f.dir(0).packets) + u64::from(f.dir(1).packets)).sum::<u64>();
        prop_assert_eq!(sum(&whole), sum(&capped) + capped.totals.evicted.packets);
        prop_assert_eq!(whole.totals.bytes, capped.totals.bytes);
    }
}

#[test]
fn sixty_thousand_flows_of_one_table_stay_apart() {
    let mut all = Vec::new();
    for i in 0..60_000u32 {
        let [_, b, c, d] = i.to_be_bytes();
        let base = Sent {
            flow: 0,
            reversed: false,
            seq: i,
            ack: 0,
            flags: 2,
            len: 0,
            window: 5,
            options: 0,
            kind: 0,
            wait_us: 1,
        };
        let segment = tcp(&base, [1000, 80]);
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend(checksum_free_ipv4(6, [10, b, c, d], [10, 255, 0, 1], 1, 0, &segment));
        all.push((i64::from(i), frame));
    }
    let bytes = pcap(&all, false, true);
    for threads in [1, 2] {
        let summary = engine::summarize_bytes(&bytes, &Options { threads, ..Options::default() }).unwrap();
        assert_eq!(summary.len(), 60_000);
        assert!(summary.flows().enumerate().all(|(i, flow)| flow.story.stream == i as u32));
    }
}

#[test]
fn an_obsolete_packet_block_too_short_for_its_fields_is_damage() {
    let mut file = pcapng(&[]);
    for word in [2u32, 24, 0, 0, 0, 24] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 64]);
    let whole = engine::summarize_bytes(&file, &options(1, 256)).unwrap();
    assert!(whole.totals.damaged_at.is_some() && whole.totals.packets == 0);
    assert_eq!(digest(&whole), digest(&through_pieces(file, vec![5])));
}
