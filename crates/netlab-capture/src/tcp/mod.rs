//! TCP analysis: the rules of Wireshark's sequence analysis, one rule in one place, in their order,
//! and tcptrace's view (octets seen before, Karn's RTT) beside them.
//!
//! Words: F is the sender of the packet at hand, R the other side; `ctl` any of SYN, FIN, RST. Zero is
//! "unset" for `next`, `reach`, `ack`, the SYN time and the initial RTT, because it is in the program
//! whose numbers these are; sequence numbers compare by signed difference, times by unsigned.
//!
//! Unsatisfactory: the 4.4 rules were written from a description and could not be compared with a
//! running 4.4 on the machine this was made on.

pub mod histogram;
mod plain;
pub mod ranges;
pub mod ring;

use crate::flows::{Dir, DirStory, Flow, Story, control, held, known};
use crate::packet::{Extra, Packet, flag, mark, option};
use crate::reader::NO_TIME;
use histogram::Rtts;
use ranges::Ranges;
use ring::{Acked, Entry, LIMIT, Popped, Rings, before};

/// Bits of [`Dir::state`].
pub mod state {
    /// `base` holds the first sequence number.
    pub const BASE: u16 = 1;
    /// A SYN was sent and no ACK without SYN since.
    pub const FIRST_ACK_PENDING: u16 = 2;
    /// No hole was seen since the other side's last ACK.
    pub const IN_FLIGHT_VALID: u16 = 4;
    /// The inline entry is in use.
    pub const ONE: u16 = 8;
    /// The inline entry was sent more than once.
    pub const ONE_REPEATED: u16 = 16;
    /// The newest packet was a keep-alive.
    pub const LAST_KEEP_ALIVE: u16 = 32;
    /// The newest packet was a zero-window probe.
    pub const LAST_PROBE: u16 = 64;
    /// The newest packet had SACK blocks.
    pub const SACK: u16 = 128;
    /// Octet ranges are accounted (the first sequence number consumed was seen).
    pub const RANGES: u16 = 256;
    /// `next` was last moved by a packet without data.
    pub const NEXT_BY_EMPTY: u16 = 512;
    /// A packet was sent: the window is known.
    pub const WINDOW: u16 = 1024;
    /// A retransmission happened: Karn's statistics may differ.
    pub const KARN: u16 = 2048;
    /// The window is closed since `Trouble::closed_since`.
    pub const WINDOW_CLOSED: u16 = 4096;
    /// A packet with time stamps was sent; the bit of the same meaning in a packet's marks.
    pub const TIMESTAMPS: u16 = crate::packet::mark::TIMESTAMPS;
    /// Octets were sent out of their order: `Trouble::repeats` has the last ones.
    pub const REPEATS: u16 = 1 << 14;
}

/// Bits of [`Verdict::flags`], and their order in every table.
pub mod analysis {
    #![allow(missing_docs)]
    pub const RETRANSMISSION: u32 = 1;
    pub const FAST_RETRANSMISSION: u32 = 1 << 1;
    pub const SPURIOUS_RETRANSMISSION: u32 = 1 << 2;
    pub const OUT_OF_ORDER: u32 = 1 << 3;
    pub const DUPLICATE_ACK: u32 = 1 << 4;
    pub const LOST_SEGMENT: u32 = 1 << 5;
    pub const ACK_LOST_SEGMENT: u32 = 1 << 6;
    pub const ZERO_WINDOW: u32 = 1 << 7;
    pub const ZERO_WINDOW_PROBE: u32 = 1 << 8;
    pub const ZERO_WINDOW_PROBE_ACK: u32 = 1 << 9;
    pub const WINDOW_FULL: u32 = 1 << 10;
    pub const WINDOW_UPDATE: u32 = 1 << 11;
    pub const KEEP_ALIVE: u32 = 1 << 12;
    pub const KEEP_ALIVE_ACK: u32 = 1 << 13;
    pub const REUSED_PORTS: u32 = 1 << 14;
    /// 4.4 only.
    pub const PARTIAL_ACK: u32 = 1 << 15;
    /// Column names, by bit.
    pub const NAMES: [&str; 16] = [
        "retransmission",
        "fast_retransmission",
        "spurious_retransmission",
        "out_of_order",
        "duplicate_ack",
        "lost_segment",
        "ack_lost_segment",
        "zero_window",
        "zero_window_probe",
        "zero_window_probe_ack",
        "window_full",
        "window_update",
        "keep_alive",
        "keep_alive_ack",
        "reused_ports",
        "partial_ack",
    ];
}
use analysis as a;

/// The limit of rule 12b, ns.
const FAST_LIMIT: u64 = 20_000_000;
/// The out-of-order limit while the initial RTT is unknown, ns.
const ORDER_LIMIT: u64 = 3_000_000;
/// An RTT of more than this (146 years) is none, ns.
const FAR: u64 = 1 << 62;
/// "-1" of the duplicate counter, which is unsigned.
const DUP_NONE: u32 = u32::MAX;

/// What was decided about one packet. Times in ns, negative where stamps run backwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// Bits of [`analysis`].
    pub flags: u32,
    /// Number of this duplicate; 0 = none.
    pub duplicate_ack_num: u32,
    /// Frame it duplicates (low 32 bits).
    pub duplicate_ack_frame: u32,
    /// Frame acknowledged (low 32 bits); valid with `ack_rtt`.
    pub acks_frame: Option<u32>,
    /// Time since that frame.
    pub ack_rtt: i64,
    /// Retransmission timeout seen; 0 = none.
    pub rto: i64,
    /// Frame it is measured from (low 32 bits).
    pub rto_frame: u32,
    /// Octets in flight; 0 = not shown.
    pub in_flight: u32,
    /// Octets since the last push; 0 = not shown.
    pub push_bytes: u32,
    /// Octets tcptrace counts as sent before.
    pub overlap: u32,
    /// The last octet had been sent before.
    pub tail_seen: bool,
}

/// Anomalies of one direction; exists once the first happened.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Packets by [`analysis`] bit.
    pub counts: [u32; 16],
    /// Sequence numbers sent again (tcptrace): octets, SYN and FIN.
    pub retrans_bytes: u64,
    /// Octets of payload that are not unique: sent again, or as a probe into a closed window.
    pub retrans_payload: u64,
    /// Segments that repeated octets or filled a hole: sequence number and time, both increasing; one
    /// that a later and lower one makes irrelevant is dropped, and so are the oldest beyond a limit.
    repeats: Vec<(u32, i64)>,
    /// Packets with such octets.
    pub retrans_packets: u32,
    /// Segments that filled a hole (tcptrace's out of order).
    pub hole_fills: u32,
    /// Longest run of duplicate acknowledgements.
    pub max_dup_run: u32,
    /// Packets with SACK blocks, the blocks, and duplicate SACKs (RFC 2883).
    pub sack_packets: u32,
    /// SACK blocks.
    pub sack_blocks: u32,
    /// D-SACKs.
    pub dsack: u32,
    /// Packets with ECE, with CWR, with CE in the IP header.
    pub ece: u32,
    /// Congestion window reduced.
    pub cwr: u32,
    /// Congestion experienced.
    pub ce: u32,
    /// Octets in the first three SACK blocks of the newest packet, while `state` has [`state::SACK`].
    sack_sum: u32,
    /// Handle of the octet ranges seen, while there are holes; else one range up to `next`.
    ranges: u32,
    /// Upper halves of the octet counts.
    octets: [u32; 3],
    /// Largest payload above 65,535.
    pub max_seg: u32,
    /// SYN, SYN+ACK, FIN, RST beyond 255.
    pub controls: [u32; 4],
    /// When the window closed.
    pub closed_since: i64,
    /// Time this side's window was closed, ns.
    pub zero_window_ns: u64,
    /// ICMP "unreachable" (and the like) about this sender's packets.
    pub icmp_unreach: u32,
    /// ICMP "fragmentation needed" / "packet too big".
    pub icmp_frag_needed: u32,
    /// Smallest MTU such a message named; 0 = none.
    pub mtu_hint: u32,
    /// Segments whose checksum was verified and wrong.
    pub bad_checksum: u32,
    /// Segments whose checksum was left to the card.
    pub partial_checksum: u32,
    /// Samples that Karn's rule, or a repetition in between, keeps out of the statistics.
    pub karn_ambiguous: u32,
}

/// Repetitions remembered per direction.
const MAX_REPEATS: usize = 1024;

impl Trouble {
    /// Octet counts went over; `len` may be too long for the record.
    #[cold]
    pub(crate) fn carry(&mut self, over: [bool; 3], len: u32) {
        for (high, over) in self.octets.iter_mut().zip(over) {
            *high = high.saturating_add(u32::from(over));
        }
        self.max_seg = self.max_seg.max(if len > 0xffff { len } else { 0 });
    }

    fn repeat(&mut self, seq: u32, time: i64) {
        while self.repeats.last().is_some_and(|&(known, _)| !before(known, seq)) {
            self.repeats.pop();
        }
        if self.repeats.len() >= MAX_REPEATS {
            self.repeats.drain(..MAX_REPEATS / 2);
        }
        self.repeats.push((seq, time));
    }

    /// Whether a segment below `seq` was sent again after `time`.
    fn overtaken(&self, seq: u32, time: i64) -> bool {
        self.repeats
            .iter()
            .rev()
            .find(|&&(known, _)| before(known, seq))
            .is_some_and(|&(_, sent)| sent > time)
    }
}

/// What only the segment table needs, per direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detail {
    /// Frame that last changed the acknowledgement (low 32 bits).
    pub dup_frame: u32,
    /// Frame that moved `next` last (low 32 bits).
    pub next_frame: u32,
    /// Frame of the only unacknowledged segment (low 32 bits).
    one_frame: u32,
    push_bytes: u32,
    push_last: bool,
}

/// Which release's rules apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// tshark 4.0.
    #[default]
    V40,
    /// tshark 4.4.
    V44,
}

/// Pools shared by the flows of a shard.
#[derive(Debug, Default)]
pub struct Tcp {
    /// Release followed.
    pub rules: Rules,
    /// Lists of unacknowledged segments.
    pub rings: Rings,
    /// RTT statistics.
    pub rtts: Rtts,
    /// Octet ranges of directions with holes.
    pub ranges: Vec<Ranges>,
    free_ranges: Vec<u32>,
    /// Anomalies.
    pub troubles: Vec<Trouble>,
    free_troubles: Vec<u32>,
    /// Details by slot, when the segment table is wanted.
    pub details: Vec<[Detail; 2]>,
}

/// One packet on its way through the rules.
struct Step<'a> {
    packet: &'a Packet,
    extra: Option<&'a Extra>,
    frame: u64,
    slot: usize,
    dir: usize,
}

/// How the packet stands to the stored initial number, before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Belongs to the stream.
    Same,
    /// A SYN (in 4.4 also a SYN+ACK) that opens a new stream on the same ports.
    Reused,
    /// A SYN+ACK with another number: the stored one is replaced (4.0).
    Renumbered,
}

/// Unsigned time difference, ns: an earlier packet is "very late".
#[inline(always)]
fn since(now: i64, then: i64) -> u64 {
    now.wrapping_sub(then) as u64
}

/// From one stamp to another, ns; nothing where a packet has no time.
fn elapsed(then: i64, now: i64) -> Option<i64> {
    (then != NO_TIME && now != NO_TIME).then(|| now.wrapping_sub(then))
}

impl Tcp {
    /// Empty pools for about so many flows.
    pub fn new(rules: Rules, expected: usize) -> Self {
        Self { rules, rtts: Rtts::new(expected), ..Self::default() }
    }

    /// Whether a packet with SYN opens a new stream where one with this key exists.
    pub fn opening(&self, flow: &Flow, story: &Story, packet: &Packet) -> Opening {
        let syn = packet.flags & (flag::SYN | flag::ACK);
        let dir = usize::from(packet.marks & mark::REVERSED);
        let own = &flow.dirs[dir];
        if syn & flag::SYN == 0 || own.state & state::BASE == 0 {
            return Opening::Same;
        }
        if packet.seq != own.base {
            return if syn == flag::SYN || self.rules == Rules::V44 {
                Opening::Reused
            } else {
                Opening::Renumbered
            };
        }
        let ended = story.dirs.iter().any(|d| d.controls[control::RST] > 0 || d.controls[control::FIN] > 0);
        if syn == flag::SYN && self.rules == Rules::V44 && ended { Opening::Reused } else { Opening::Same }
    }

    /// The anomalies of a direction, created on first use.
    pub fn trouble(&mut self, handle: &mut u32) -> &mut Trouble {
        if *handle == 0 {
            *handle = match self.free_troubles.pop() {
                Some(free) => {
                    self.troubles[free as usize - 1] = Trouble::default();
                    free
                }
                None => {
                    self.troubles.push(Trouble::default());
                    self.troubles.len() as u32
                }
            };
        }
        &mut self.troubles[*handle as usize - 1]
    }

    /// Count a packet that opens or closes.
    pub(crate) fn control(&mut self, own: &mut DirStory, which: usize) {
        if own.controls[which] < u8::MAX {
            own.controls[which] += 1;
        } else {
            let beyond = &mut self.trouble(&mut own.trouble).controls[which];
            *beyond = beyond.saturating_add(1);
        }
    }

    /// Octets a direction sent: of frames, of IP datagrams, of payload.
    pub fn octets_of(&self, dir: &Dir, seldom: &DirStory) -> [u64; 3] {
        let high = self.troubles.get((seldom.trouble as usize).wrapping_sub(1)).map_or([0; 3], |t| t.octets);
        std::array::from_fn(|i| u64::from(high[i]) << 32 | u64::from(dir.octets[i]))
    }

    /// Advance the flow by one packet. `DETAIL`: also keep what only the segment table shows.
    #[inline(always)]
    pub fn analyse<const DETAIL: bool>(
        &mut self,
        flow: &mut Flow,
        story: &mut Story,
        packet: &Packet,
        extra: Option<&Extra>,
        frame: u64,
        slot: usize,
    ) -> Verdict {
        let dir = usize::from(packet.marks & mark::REVERSED);
        if DETAIL && self.details.len() <= slot {
            self.details.resize(slot + 1, [Detail::default(); 2]);
        }
        let step = Step { packet, extra, frame, slot, dir };
        let mut verdict = Verdict::default();
        if packet.marks & mark::NO_LENGTH == 0 {
            self.sequence::<DETAIL>(flow, story, &step, &mut verdict);
        }
        self.afterwards(flow, story, &step);
        verdict
    }

    /// Rules 1 to 17.
    #[inline(always)]
    fn sequence<const DETAIL: bool>(
        &mut self,
        flow: &mut Flow,
        story: &mut Story,
        step: &Step<'_>,
        verdict: &mut Verdict,
    ) {
        let Step { packet, dir, .. } = *step;
        let (low, high) = flow.dirs.split_at_mut(1);
        let (f, r) = if dir == 0 { (&mut low[0], &mut high[0]) } else { (&mut high[0], &mut low[0]) };
        let Packet { seq, ack, len, ts: now, .. } = *packet;
        let window = u32::from(packet.window);
        let acks = packet.flags & flag::ACK != 0;
        let ctl = packet.flags & (flag::SYN | flag::FIN | flag::RST) != 0;
        let edge = u32::from(packet.flags & (flag::SYN | flag::FIN) != 0);
        let end = seq.wrapping_add(len);

        if f.state & state::BASE == 0 {
            f.base = if packet.flags & flag::SYN != 0 { seq } else { seq.wrapping_sub(1) };
            f.state |= state::BASE;
        }
        if acks {
            if r.state & state::BASE == 0 {
                r.base = ack.wrapping_sub(1);
                r.state |= state::BASE;
            }
            r.state |= state::IN_FLIGHT_VALID;
        }

        let mut flags = 0u32;
        let pure = len == 0 && !ctl && seq == f.next && ack == f.ack;
        // 1
        let probe = len == 1 && seq == f.next && r.window() == 0;
        if probe {
            flags |= a::ZERO_WINDOW_PROBE;
        } else {
            // 2
            if window == 0 && !ctl {
                flags |= a::ZERO_WINDOW;
            }
            // 3
            if f.next != 0 && before(f.next, seq) && packet.flags & flag::RST == 0 {
                flags |= a::LOST_SEGMENT;
                f.state &= !state::IN_FLIGHT_VALID;
            }
            // 4
            if len <= 1 && seq == f.next.wrapping_sub(1) && !ctl {
                flags |= a::KEEP_ALIVE;
            }
            // 5
            if pure && window != 0 && window != f.window() {
                let sack = step.extra.is_some_and(|e| e.sack_count > 0);
                if self.rules == Rules::V44 && sack {
                    self.duplicate::<DETAIL>(f, step, verdict, &mut flags);
                } else {
                    flags |= a::WINDOW_UPDATE;
                }
            }
            // 6
            if len > 0 && !ctl && r.scale != -1 {
                let shift =
                    if r.scale == -2 || r.state & state::FIRST_ACK_PENDING != 0 { 0 } else { r.scale as u32 };
                if end == r.ack.wrapping_add(r.window().wrapping_shl(shift)) {
                    flags |= a::WINDOW_FULL;
                }
            }
            if pure && window == f.window() {
                if window != 0 {
                    if r.state & state::LAST_KEEP_ALIVE != 0 {
                        // 7
                        flags |= a::KEEP_ALIVE_ACK;
                    } else {
                        // 9
                        self.duplicate::<DETAIL>(f, step, verdict, &mut flags);
                    }
                } else if r.state & state::LAST_PROBE != 0 {
                    // 8
                    flags |= a::ZERO_WINDOW_PROBE_ACK;
                }
            }
            if self.rules == Rules::V44
                && len == 0
                && !ctl
                && seq == f.next
                && ack == f.ack.wrapping_add(1)
                && window == 0
                && f.window() == 0
                && r.state & state::LAST_PROBE != 0
            {
                // 8 of 4.4: the probe's octet was taken
                flags |= a::ZERO_WINDOW_PROBE_ACK;
                r.next = ack;
                r.reach = ack;
            }
        }
        // 10
        if ack != f.ack {
            f.dup = 0;
            if DETAIL {
                self.details[step.slot][dir].dup_frame = step.frame as u32;
            }
        }
        // 11
        if acks && r.reach != 0 && before(r.reach, ack) {
            self.acked_unseen(f, r, packet, &mut flags);
        }
        // 12
        if (len > 0 || edge != 0) && flags & a::KEEP_ALIVE == 0 && f.next != 0 {
            let below = before(seq, f.next);
            let stuck = below && !(len > 1 && seq == f.next.wrapping_sub(1));
            if below || len > 0 && r.ack != 0 && !before(r.ack, end) {
                let initial = if flow.known & known::INITIAL == 0 { 0 } else { story.initial };
                self.repeated::<DETAIL>(f, r, initial, step, stuck, &mut flags, verdict);
            }
        } else if len > 0 && flags & a::KEEP_ALIVE == 0 && r.ack != 0 && !before(r.ack, end) {
            // 12a needs no earlier segment
            flags |= a::SPURIOUS_RETRANSMISSION | a::RETRANSMISSION;
        }
        // tcptrace's view, before `next` moves
        if len > 0 || edge != 0 {
            let syn = u32::from(packet.flags & flag::SYN != 0);
            self.octets(f, r, story, step, syn, edge, verdict);
        } else if flags & a::LOST_SEGMENT != 0 && f.held & held::HOLES == 0 && f.state & state::RANGES != 0 {
            // `next` is about to jump over octets that were not seen.
            self.hole(f, &mut story.dirs[dir].trouble);
        }
        // 13
        let mut close = end;
        if (len > 0 || edge != 0) && self.listed(f) < LIMIT {
            close = end.wrapping_add(edge);
            let entry =
                Entry { seq, end: close, time: now, frame: step.frame as u32, repeated: verdict.tail_seen };
            self.list::<DETAIL>(f, (step.slot, dir), entry);
        }
        // 14
        if (before(f.next, close) || f.next == 0) && !probe {
            f.next = close;
            f.next_time = now;
            if self.rules == Rules::V44 {
                f.state &= !state::NEXT_BY_EMPTY;
                f.state |= if len == 0 { state::NEXT_BY_EMPTY } else { 0 };
            }
            if DETAIL {
                self.details[step.slot][dir].next_frame = step.frame as u32;
            }
        }
        if (seq == f.reach || f.reach == 0) && !probe {
            f.reach = f.next;
        }
        // 15
        f.last_window = packet.window;
        f.state |= state::WINDOW;
        f.ack = ack;
        f.ack_time = now;
        f.state &= !(state::LAST_KEEP_ALIVE | state::LAST_PROBE);
        if flags & (a::KEEP_ALIVE | a::ZERO_WINDOW_PROBE) != 0 {
            f.state |= if probe { state::LAST_PROBE } else { state::LAST_KEEP_ALIVE };
        }
        // 16
        if r.held & held::RING != 0 || r.state & state::ONE != 0 {
            let place = (step.slot, 1 - dir);
            if let Some((entry, flag)) =
                self.acknowledge::<DETAIL>(r, &mut story.dirs[1 - dir], place, ack, now, f.rtt)
            {
                flags |= flag;
                verdict.acks_frame = Some(entry.frame);
                verdict.ack_rtt = elapsed(entry.time, now).unwrap_or(0);
            }
        }
        // 17
        if len > 0
            && f.state & state::IN_FLIGHT_VALID != 0
            && (f.held & held::RING != 0 || f.state & state::ONE != 0)
        {
            let (first, last) = self.ends(f);
            let sacked = match r.state & state::SACK {
                0 => 0,
                _ => self.trouble(&mut story.dirs[1 - dir].trouble).sack_sum,
            };
            let flight = last.wrapping_sub(first).wrapping_sub(sacked);
            if flight > 0 && flight < 2_000_000_000 {
                verdict.in_flight = flight - edge;
                f.flight_max = f.flight_max.max(verdict.in_flight);
            }
            if DETAIL {
                // Counted always, shown beside the octets in flight.
                let detail = &mut self.details[step.slot][dir];
                detail.push_bytes = if detail.push_last { len } else { detail.push_bytes.wrapping_add(len) };
                detail.push_last = packet.flags & flag::PSH != 0;
                verdict.push_bytes = if verdict.in_flight > 0 { detail.push_bytes } else { 0 };
            }
        }
        verdict.flags |= flags;
        if flags != 0 {
            self.count(&mut story.dirs[dir].trouble, flags, verdict.duplicate_ack_num);
        }
    }

    #[cold]
    fn count(&mut self, handle: &mut u32, flags: u32, duplicate: u32) {
        let trouble = self.trouble(handle);
        let mut left = flags;
        while left != 0 {
            trouble.counts[left.trailing_zeros() as usize & 15] += 1;
            left &= left - 1;
        }
        trouble.max_dup_run = trouble.max_dup_run.max(duplicate);
    }

    /// Rule 9. Its MPTCP exception (RFC 8684 §4) has no effect in any capture compared so far: left out.
    fn duplicate<const DETAIL: bool>(
        &mut self,
        f: &mut Dir,
        step: &Step<'_>,
        verdict: &mut Verdict,
        flags: &mut u32,
    ) {
        f.dup = if f.dup == DUP_NONE { 1 } else { f.dup + 1 };
        *flags |= a::DUPLICATE_ACK;
        verdict.duplicate_ack_num = f.dup;
        if DETAIL {
            verdict.duplicate_ack_frame = self.details[step.slot][step.dir].dup_frame;
        }
    }

    /// Rule 11: an acknowledgement of something the capture did not see.
    #[cold]
    fn acked_unseen(&mut self, f: &Dir, r: &mut Dir, packet: &Packet, flags: &mut u32) {
        let ack = packet.ack;
        if self.rules == Rules::V40 {
            if before(r.reach, r.next) {
                r.reach = r.next;
                *flags |= a::ACK_LOST_SEGMENT;
            } else {
                if r.dup == 0 {
                    *flags |= a::ACK_LOST_SEGMENT;
                }
                r.dup = DUP_NONE;
            }
            return;
        }
        if ack == f.ack.wrapping_add(1) && packet.seq == f.next && r.state & state::LAST_PROBE != 0 {
            *flags |= a::WINDOW_UPDATE;
            return;
        }
        *flags |= a::ACK_LOST_SEGMENT;
        // The newest segments, as far down as they touch one another.
        let mut tail: Option<(u32, u32)> = None;
        if r.held & held::RING != 0 {
            for entry in self.rings.sent(r.one_end).iter().rev() {
                tail = match tail {
                    None => Some((entry.seq, entry.end)),
                    Some((low, high)) if entry.end == low => Some((entry.seq, high)),
                    Some(_) => break,
                };
            }
        } else if r.state & state::ONE != 0 {
            tail = Some((r.one_seq, r.one_end));
        }
        r.reach = match tail {
            Some((low, high)) if !before(ack, low) && before(ack, high) => high,
            _ => ack,
        };
    }

    /// Rule 12: which kind of repetition this is.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn repeated<const DETAIL: bool>(
        &mut self,
        f: &Dir,
        r: &Dir,
        initial: i64,
        step: &Step<'_>,
        stuck: bool,
        flags: &mut u32,
        verdict: &mut Verdict,
    ) {
        let Packet { seq, len, ts: now, .. } = *step.packet;
        let end = seq.wrapping_add(len);
        let edge = u32::from(step.packet.flags & (flag::SYN | flag::FIN) != 0);
        let later = self.rules == Rules::V44;
        // a
        if len > 0 && r.ack != 0 && !before(r.ack, end) {
            *flags |= a::SPURIOUS_RETRANSMISSION | a::RETRANSMISSION;
            return;
        }
        if !stuck {
            return;
        }
        // b
        let asked = r.ack == seq || later && r.state & state::SACK != 0;
        if r.dup >= 2 && asked && since(now, r.ack_time) < FAST_LIMIT {
            *flags |= a::FAST_RETRANSMISSION | a::RETRANSMISSION;
            return;
        }
        // c
        let limit = if initial == 0 { ORDER_LIMIT } else { initial as u64 };
        let mut at_end = f.next == end.wrapping_add(edge);
        let mut listed = false;
        if later {
            at_end &= f.state & state::NEXT_BY_EMPTY == 0;
            let same = |e: &Entry| e.seq == seq && e.end == end.wrapping_add(edge);
            listed = match f.held & held::RING {
                0 => f.state & state::ONE != 0 && f.one_seq == seq && f.one_end == end.wrapping_add(edge),
                _ => self.rings.iter(f.one_end).any(|e| same(&e)),
            };
        }
        if since(now, f.next_time) < limit && !at_end && !listed {
            *flags |= a::OUT_OF_ORDER;
            return;
        }
        // d
        *flags |= a::RETRANSMISSION;
        let oldest = match f.held & held::RING {
            0 if f.state & state::ONE != 0 => {
                Some((f.one_time, if DETAIL { self.details[step.slot][step.dir].one_frame } else { 0 }))
            }
            0 => None,
            _ if later => {
                self.rings.sent(f.one_end).iter().find(|e| !before(e.seq, seq)).map(|e| (e.time, e.frame))
            }
            _ => self.rings.oldest(f.one_end).map(|e| (e.time, e.frame)),
        };
        let next_frame = if DETAIL { self.details[step.slot][step.dir].next_frame } else { 0 };
        let (then, frame) = oldest.unwrap_or((f.next_time, next_frame));
        verdict.rto = elapsed(then, now).unwrap_or(0);
        verdict.rto_frame = frame;
    }

    /// How many segments of a direction wait for their acknowledgement.
    #[inline(always)]
    fn listed(&self, f: &Dir) -> usize {
        if f.held & held::RING == 0 {
            usize::from(f.state & state::ONE != 0)
        } else {
            self.rings.len(f.one_end)
        }
    }

    /// Start of the first and end of the last of them, relative to the first sequence number.
    #[inline(always)]
    fn ends(&self, f: &Dir) -> (u32, u32) {
        match f.held & held::RING {
            0 => (f.one_seq.wrapping_sub(f.base), f.one_end.wrapping_sub(f.base)),
            _ => self.rings.ends(f.one_end, f.base),
        }
    }

    /// Rule 13: remember a segment until it is acknowledged. `place`: slot and direction, for the detail.
    #[inline(always)]
    fn list<const DETAIL: bool>(&mut self, f: &mut Dir, place: (usize, usize), entry: Entry) {
        let (slot, dir) = place;
        if f.held & held::RING == 0 {
            if f.state & state::ONE == 0 {
                f.one_seq = entry.seq;
                f.one_end = entry.end;
                f.one_time = entry.time;
                if DETAIL {
                    self.details[slot][dir].one_frame = entry.frame;
                }
                f.state = (f.state | state::ONE) & !state::ONE_REPEATED;
                if entry.repeated {
                    f.state |= state::ONE_REPEATED;
                }
                return;
            }
            // Which frame it was matters to the segment table only; to the list, that it came before.
            let frame = if DETAIL { self.details[slot][dir].one_frame } else { entry.frame.wrapping_sub(1) };
            let one = Self::one(f, frame);
            f.one_end = self.rings.take();
            f.held |= held::RING;
            self.rings.push(f.one_end, one);
            f.state &= !state::ONE;
        }
        self.rings.push(f.one_end, entry);
    }

    #[inline(always)]
    fn one(f: &Dir, frame: u32) -> Entry {
        Entry {
            seq: f.one_seq,
            end: f.one_end,
            time: f.one_time,
            frame,
            repeated: f.state & state::ONE_REPEATED != 0,
        }
    }

    /// Rule 16, for the list of the other side; and Karn's variant of the same sample. `place` as for
    /// [`Self::list`], of the other side; `beside`: the acknowledging side's handle of RTT statistics.
    /// Returns the entry that was timed, and the flag that brings.
    #[inline(always)]
    fn acknowledge<const DETAIL: bool>(
        &mut self,
        r: &mut Dir,
        seldom: &mut DirStory,
        place: (usize, usize),
        ack: u32,
        now: i64,
        beside: u32,
    ) -> Option<(Entry, u32)> {
        let (slot, other) = place;
        let acked = if r.held & held::RING == 0 {
            let one = Self::one(r, if DETAIL { self.details[slot][other].one_frame } else { 0 });
            if one.end == ack {
                r.state &= !state::ONE;
                Acked { exact: Some(one), newest: Some(one), partial: None }
            } else if before(one.seq, ack) && before(ack, one.end) {
                r.one_seq = ack;
                Acked { partial: Some(one), ..Acked::default() }
            } else {
                if !before(ack, one.end) {
                    r.state &= !state::ONE;
                }
                return None;
            }
        } else {
            let acked = match self.rings.pop(r.one_end, ack) {
                Popped::Exact(entry) => Acked { exact: Some(entry), newest: Some(entry), partial: None },
                Popped::Into(entry) => Acked { partial: Some(entry), ..Acked::default() },
                Popped::Past => Acked::default(),
                Popped::Odd => self.rings.acknowledge(r.one_end, ack),
            };
            if self.rings.len(r.one_end) == 0 {
                self.rings.give(r.one_end);
                r.held &= !held::RING;
            }
            acked
        };
        let (entry, flag) = match (acked.exact, acked.partial) {
            (Some(entry), _) => (entry, 0),
            (None, Some(entry)) if self.rules == Rules::V44 => (entry, a::PARTIAL_ACK),
            _ => return None,
        };
        let rtt = now.wrapping_sub(entry.time);
        if r.rtt == 0 {
            r.rtt = self.rtts.new_record(beside);
        }
        // What has no time lies farther off than this, or nowhere.
        let plain = (rtt.wrapping_sub(1) as u64) < FAR && r.state & (state::REPEATS | state::KARN) == 0;
        let repeated = |e: Option<Entry>| e.is_some_and(|e| e.repeated);
        if plain && !repeated(acked.exact) && !repeated(acked.newest) {
            self.rtts.add(r.rtt, rtt);
        } else {
            self.karn(r, seldom, &acked, entry, now);
        }
        Some((entry, flag))
    }

    /// A sample where Karn's statistics differ from the others, or may, or that is none.
    #[cold]
    #[inline(never)]
    fn karn(&mut self, r: &mut Dir, seldom: &mut DirStory, acked: &Acked, entry: Entry, now: i64) {
        let Some(rtt) = elapsed(entry.time, now) else { return };
        if rtt == 0 {
            // tshark shows no zero RTT, tcptrace counts it.
            if acked.exact.is_some_and(|e| !e.repeated) {
                r.state |= state::KARN;
                self.rtts.add_karn(r.rtt, 0);
            }
            return;
        }
        let repeated = |e: Option<Entry>| e.is_some_and(|e| e.repeated);
        // tcptrace leaves out a segment, too, when one below it was sent again after it.
        let overtaken = r.state & state::REPEATS != 0 && {
            let trouble = self.trouble(&mut seldom.trouble);
            trouble.overtaken(entry.seq, entry.time)
        };
        if overtaken || repeated(acked.exact) || repeated(acked.newest) {
            self.rtts.split(r.rtt);
            r.state |= state::KARN;
            self.trouble(&mut seldom.trouble).karn_ambiguous += 1;
        } else if r.state & state::KARN != 0 {
            self.rtts.add_karn(r.rtt, rtt);
        }
        self.rtts.add(r.rtt, rtt);
    }

    /// tcptrace's accounting of octets. A segment sent into a closed window is a probe and left out; the
    /// window of 0 that a RST carries closes nothing.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn octets(
        &mut self,
        f: &mut Dir,
        r: &Dir,
        story: &mut Story,
        step: &Step<'_>,
        syn: u32,
        edge: u32,
        verdict: &mut Verdict,
    ) {
        let Packet { seq, len, .. } = *step.packet;
        let size = len.wrapping_add(edge);
        if f.state & state::RANGES == 0 {
            f.state |= state::RANGES;
            if f.next == 0 || f.next == seq {
                return;
            }
        } else if f.held & held::HOLES == 0 && seq == f.next && r.state & state::WINDOW_CLOSED == 0 {
            return;
        }
        self.odd_octets(f, r, story, step, syn, size, verdict);
    }

    /// The same when the segment does not simply continue.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn odd_octets(
        &mut self,
        f: &mut Dir,
        r: &Dir,
        story: &mut Story,
        step: &Step<'_>,
        syn: u32,
        size: u32,
        verdict: &mut Verdict,
    ) {
        let seq = step.packet.seq;
        let handle = &mut story.dirs[step.dir].trouble;
        if f.held & held::HOLES == 0 {
            self.hole(f, handle);
        }
        if r.state & state::WINDOW_CLOSED != 0 && syn == 0 {
            if seq == r.ack {
                let trouble = self.trouble(&mut story.dirs[step.dir].trouble);
                trouble.retrans_payload += u64::from(step.packet.len);
            }
            return;
        }
        let which = self.trouble(handle).ranges;
        let ranges = &mut self.ranges[which as usize - 1];
        let added = ranges.add(seq, size);
        let high = seq.wrapping_add(size);
        let next = if before(f.next, high) { high } else { f.next };
        if ranges.whole() == Some(next) {
            self.free_ranges.push(which);
            self.trouble(handle).ranges = 0;
            f.held &= !held::HOLES;
        }
        if added == ranges::Added::default() {
            return;
        }
        let trouble = self.trouble(&mut story.dirs[step.dir].trouble);
        trouble.hole_fills += u32::from(added.fills_hole);
        trouble.repeat(seq, step.packet.ts);
        f.state |= state::REPEATS;
        if added.overlap > 0 {
            trouble.retrans_bytes += u64::from(added.overlap);
            trouble.retrans_payload += u64::from(added.overlap.min(step.packet.len));
            trouble.retrans_packets += 1;
            verdict.overlap = added.overlap;
            verdict.tail_seen = added.tail_seen;
            if f.held & held::RING != 0 {
                self.rings.mark_repeated(f.one_end, seq, high);
            } else if f.state & state::ONE != 0 && before(seq, f.one_end) && !before(high, f.one_end) {
                f.state |= state::ONE_REPEATED;
            }
        }
    }

    /// Begin to keep ranges: what was seen so far is one, up to `next`, no longer than comparisons reach.
    fn hole(&mut self, f: &mut Dir, trouble: &mut u32) {
        let [_, _, payload] = f.octets;
        let far =
            payload > 1 << 30 || self.trouble(trouble).octets[2] > 0 || f.next.wrapping_sub(f.base) > 1 << 30;
        let low = if far { f.next.wrapping_sub(1 << 30) } else { f.base };
        let handle = self.free_ranges.pop().unwrap_or_else(|| {
            self.ranges.push(Ranges::default());
            self.ranges.len() as u32
        });
        f.held |= held::HOLES;
        self.trouble(trouble).ranges = handle;
        self.ranges[handle as usize - 1].begin(low, f.next);
    }

    /// What follows the analysis: handshake, initial RTT, options, window in octets, ECN.
    #[inline(always)]
    fn afterwards(&mut self, flow: &mut Flow, story: &mut Story, step: &Step<'_>) {
        let Step { packet, extra, dir, .. } = *step;
        let syn = packet.flags & flag::SYN != 0;
        let acks = packet.flags & flag::ACK != 0;
        if acks && !syn && (flow.initial_pending || flow.dirs[dir].state & state::FIRST_ACK_PENDING != 0) {
            opened(flow, story, packet, dir);
        }
        let (low, high) = flow.dirs.split_at_mut(1);
        let (f, r) = if dir == 0 { (&mut low[0], &mut high[0]) } else { (&mut high[0], &mut low[0]) };
        f.state = f.state & !state::SACK | packet.marks & state::TIMESTAMPS;
        if syn || extra.is_some() {
            self.rare(f, r, story, &mut flow.known, step);
            if syn && !acks {
                flow.initial_pending = flow.known & known::INITIAL == 0 && !matches!(packet.ts, 0 | NO_TIME);
            }
        }
        // The window as offered: scaled once both sides' SYNs allow it.
        if acks && packet.flags & flag::RST == 0 {
            let shift = if syn || f.scale < 0 { 0 } else { f.scale as u32 };
            let offered = u32::from(packet.window) << shift;
            f.window_max = f.window_max.max(offered);
            f.window_min = f.window_min.min(offered);
            if offered == 0 && f.state & state::WINDOW_CLOSED == 0 {
                f.state |= state::WINDOW_CLOSED;
                self.trouble(&mut story.dirs[dir].trouble).closed_since = packet.ts;
            } else if offered != 0 && f.state & state::WINDOW_CLOSED != 0 {
                f.state &= !state::WINDOW_CLOSED;
                let trouble = self.trouble(&mut story.dirs[dir].trouble);
                let closed = elapsed(trouble.closed_since, packet.ts).unwrap_or(0).max(0) as u64;
                trouble.zero_window_ns = trouble.zero_window_ns.saturating_add(closed);
            }
        }
        if packet.flags & (flag::ECE | flag::CWR) != 0 && !syn || packet.marks & mark::CE != 0 {
            let trouble = self.trouble(&mut story.dirs[dir].trouble);
            trouble.ece += u32::from(packet.flags & flag::ECE != 0 && !syn);
            trouble.cwr += u32::from(packet.flags & flag::CWR != 0 && !syn);
            trouble.ce += u32::from(packet.marks & mark::CE != 0);
        }
        if packet.marks & (mark::CHECKSUM_BAD | mark::CHECKSUM_PARTIAL) != 0 {
            let trouble = self.trouble(&mut story.dirs[dir].trouble);
            trouble.bad_checksum += u32::from(packet.marks & mark::CHECKSUM_BAD != 0);
            trouble.partial_checksum += u32::from(packet.marks & mark::CHECKSUM_PARTIAL != 0);
        }
    }

    /// SYNs and packets with options beyond time stamps.
    #[inline(never)]
    fn rare(&mut self, f: &mut Dir, r: &mut Dir, story: &mut Story, times: &mut u8, step: &Step<'_>) {
        let Step { packet, extra, dir, .. } = *step;
        let syn = packet.flags & flag::SYN != 0;
        let acks = packet.flags & flag::ACK != 0;
        if syn {
            f.state |= state::FIRST_ACK_PENDING;
            let first = &mut story.handshake;
            if !acks {
                if *times & known::INITIAL == 0 {
                    story.initial = packet.ts;
                }
                if *times & known::ANSWERED == 0 && first[0] == i64::MIN {
                    first[0] = packet.ts;
                }
            } else if *times & known::ANSWERED == 0 {
                *times |= known::ANSWERED;
                first[1] = packet.ts;
                if let Some(ns) = elapsed(first[0], packet.ts) {
                    first[0] = ns;
                    *times |= known::TO_SYNACK;
                }
            }
        }
        let own = &mut story.dirs[dir];
        if let Some(extra) = extra {
            own.options |= (extra.options & 0xff) as u8;
            if extra.options & option::MSS != 0 && syn {
                own.mss = extra.mss;
            }
            if extra.options & option::SCALE != 0 && syn {
                own.scale = extra.scale;
                f.scale = extra.scale.min(14) as i8;
            }
            if extra.sack_count > 0 {
                f.state |= state::SACK;
                let blocks = &extra.sack[..usize::from(extra.sack_count).min(4)];
                let sum = blocks
                    .iter()
                    .take(3)
                    .fold(0u32, |sum, (left, right)| sum.wrapping_add(right.wrapping_sub(*left)));
                let duplicate = is_dsack(blocks, packet.ack);
                let trouble = self.trouble(&mut own.trouble);
                trouble.sack_sum = sum;
                trouble.sack_packets += 1;
                trouble.sack_blocks += u32::from(extra.sack_count);
                trouble.dsack += u32::from(duplicate);
            }
        }
        if syn {
            if f.scale == -1 {
                f.scale = -2;
                r.scale = -2;
            } else if acks && r.scale == -2 {
                f.scale = -2;
            }
        }
    }
}

/// An acknowledgement while the initial RTT is unset or the sender's SYN was its newest: the end of the
/// handshake.
#[inline(never)]
fn opened(flow: &mut Flow, story: &mut Story, packet: &Packet, dir: usize) {
    if flow.initial_pending {
        // A difference of 0 leaves it unset: the next such packet tries again.
        let rtt = elapsed(story.initial, packet.ts).unwrap_or(0);
        if rtt != 0 {
            story.initial = rtt;
            flow.known |= known::INITIAL;
            flow.initial_pending = false;
        }
    }
    let f = &mut flow.dirs[dir];
    if f.state & state::FIRST_ACK_PENDING != 0 {
        let opener = story.dirs[dir].controls[control::SYNACK] == 0 && packet.flags & flag::RST == 0;
        if flow.known & (known::ANSWERED | known::TO_ACK) == known::ANSWERED && opener {
            if let Some(ns) = elapsed(story.handshake[1], packet.ts) {
                story.handshake[1] = ns;
                flow.known |= known::TO_ACK;
            }
        }
        f.state &= !state::FIRST_ACK_PENDING;
    }
}

/// RFC 2883: the first block lies below the acknowledgement, or within the second block.
pub fn is_dsack(blocks: &[(u32, u32)], ack: u32) -> bool {
    match *blocks {
        [(_, right), ..] if !before(ack, right) => true,
        [(left, right), (outer_left, outer_right), ..] => {
            !before(left, outer_left) && !before(outer_right, right)
        }
        _ => false,
    }
}

impl Tcp {
    /// Take back what an evicted flow holds in the pools.
    pub fn release(&mut self, flow: &Flow, story: &Story) {
        for dir in &flow.dirs {
            if dir.held & held::RING != 0 {
                self.rings.give(dir.one_end);
            }
        }
        self.rtts.release([flow.dirs[0].rtt, flow.dirs[1].rtt]);
        for dir in &story.dirs {
            if dir.trouble != 0 {
                let ranges = self.trouble(&mut dir.trouble.clone()).ranges;
                if ranges != 0 {
                    self.free_ranges.push(ranges);
                }
                self.free_troubles.push(dir.trouble);
            }
        }
    }
}
