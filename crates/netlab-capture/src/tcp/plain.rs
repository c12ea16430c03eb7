//! The short way for what nearly every packet is: the next data in order, or an acknowledgement that
//! advances, on a connection where nothing is out of the ordinary.
//!
//! For such a packet each rule of the parent module comes out one way; what then remains of them is
//! written here, without the questions. [`Tcp::plain`] asks all the questions first and changes nothing
//! until it is sure that no rule would flag anything; any other packet takes the long way, as all do for
//! the segment table. That both ways make the same flows is tested by
//! `the_short_way_comes_to_the_same_as_the_long` in tests/pipeline.rs.

use super::ring::{Entry, LIMIT, before};
use super::{Rules, Tcp, opened, state};
use crate::flows::{Flow, Story, held};
use crate::packet::{Packet, mark};

/// What the state of the sender must hold, and of the other side.
const SENDER: u16 = state::BASE | state::WINDOW | state::IN_FLIGHT_VALID;
const OTHER: u16 = state::BASE | state::WINDOW;

impl Tcp {
    /// Account and analyse a packet if nothing about it is special; false, with nothing changed, if not.
    #[inline(always)]
    pub(crate) fn plain(&mut self, flow: &mut Flow, story: &mut Story, packet: &Packet, frame: u64) -> bool {
        let Packet { seq, ack, len, ts: now, .. } = *packet;
        let dir = usize::from(packet.marks & mark::REVERSED);
        let [low, high] = &mut flow.dirs;
        let (f, r) = if dir == 0 { (low, high) } else { (high, low) };
        let data = len > 0;
        let end = seq.wrapping_add(len);

        // 1, 2, 5, 7, 8: no window is closed. 3, 4, 12: the segment begins where the last one ended.
        // 11: it acknowledges what was seen.
        let ordinary = packet.marks & mark::PLAIN != 0
            && f.state & (SENDER | state::WINDOW_CLOSED) == SENDER
            && r.state & (OTHER | state::WINDOW_CLOSED | state::SACK) == OTHER
            && seq == f.next
            && seq != 0
            && packet.window != 0
            && r.last_window != 0
            && !before(r.reach, ack)
            && now >= flow.last_ts
            && self.rules == Rules::V40;
        let (bytes, first) = f.octets[0].overflowing_add(packet.bytes);
        let (ip_bytes, second) = f.octets[1].overflowing_add(packet.ip_bytes);
        let (payload, third) = f.octets[2].overflowing_add(len);
        if !ordinary || first || second || third {
            return false;
        }
        if data {
            // 6: the window is not filled. 12a: it was not acknowledged before. tcptrace: there are no
            // holes. 13: there is room in the list.
            let shift =
                if r.scale < 0 || r.state & state::FIRST_ACK_PENDING != 0 { 0 } else { r.scale as u32 };
            let full = r.scale != -1 && end == r.ack.wrapping_add(u32::from(r.last_window) << shift);
            let accounted = f.state & state::RANGES != 0 && f.held & held::HOLES == 0;
            if full || !before(r.ack, end) || !accounted || self.listed(f) >= LIMIT {
                return false;
            }
            let entry = Entry { seq, end, time: now, frame: frame as u32, repeated: false };
            self.list::<false>(f, (0, 0), entry);
            // 14
            f.next = end;
            f.next_time = now;
            f.data_packets += 1;
            f.max_seg = f.max_seg.max(len as u16);
        } else if ack == f.ack {
            return false;
        }
        flow.counted = true;
        flow.last_frame = frame;
        flow.last_ts = now;
        f.packets = f.packets.saturating_add(1);
        f.octets = [bytes, ip_bytes, payload];
        if seq == f.reach || f.reach == 0 {
            f.reach = f.next;
        }
        // 10, 15
        if ack != f.ack {
            f.dup = 0;
        }
        f.ack = ack;
        f.ack_time = now;
        f.last_window = packet.window;
        f.state = f.state & !(state::LAST_KEEP_ALIVE | state::LAST_PROBE | state::SACK)
            | packet.marks & state::TIMESTAMPS;
        r.state |= state::IN_FLIGHT_VALID;
        // 16, 17
        if r.held & held::RING != 0 || r.state & state::ONE != 0 {
            self.acknowledge::<false>(r, &mut story.dirs[1 - dir], (0, 0), ack, now, f.rtt);
        }
        if data {
            let (first, last) = self.ends(f);
            let flight = last.wrapping_sub(first);
            if flight < 2_000_000_000 {
                f.flight_max = f.flight_max.max(flight);
            }
        }
        let shift = if f.scale < 0 { 0 } else { f.scale as u32 };
        let offered = u32::from(packet.window) << shift;
        f.window_max = f.window_max.max(offered);
        f.window_min = f.window_min.min(offered);
        if flow.initial_pending || f.state & state::FIRST_ACK_PENDING != 0 {
            opened(flow, story, packet, dir);
        }
        // The events and tcp.completeness bits that data and acknowledgements bring.
        let (bit, complete) = if data { (3, 8) } else { (2, 4) };
        if flow.letters >> (dir * 8 + bit) & 1 == 0 {
            flow.letter(story, dir, bit);
        }
        flow.completeness |= complete;
        true
    }
}
