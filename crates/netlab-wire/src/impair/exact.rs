//! Exact losses: "the second data segment from client to server, once".
//!
//! Rules count the packets they match and drop the asked ordinals. A rule that counts per flow
//! keeps its counts in a table of fixed size; flows beyond it are counted, not dropped from.

use crate::config::{Match, Per, Rule};
use crate::packet::{Digest, Kind};

/// Flows a rule can tell apart.
const FLOWS: usize = 4096;

/// The exact rules of one direction.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    rules: Vec<Counter>,
    /// Packets of flows that found no place in a rule's table.
    pub untracked: u64,
}

#[derive(Clone, Debug)]
struct Counter {
    rule: Rule,
    seen: u64,
    dropped: u64,
    flows: Vec<(u64, u64)>,
}

impl Exact {
    /// Build from settings.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Self {
        let counter = |rule: &Rule| Counter {
            rule: rule.clone(),
            seen: 0,
            dropped: 0,
            flows: if rule.per == Per::Flow { vec![(0, 0); FLOWS] } else { Vec::new() },
        };
        Self { rules: rules.iter().map(counter).collect(), untracked: 0 }
    }

    /// Keep the counts of rules that are also in `old`: a change of the delay must not
    /// make "the second data segment" start anew.
    pub fn inherit(&mut self, old: Self) {
        self.untracked = old.untracked;
        for counter in old.rules {
            if let Some(mine) = self.rules.iter_mut().find(|c| c.rule == counter.rule) {
                *mine = counter;
            }
        }
    }

    /// Count the packet in every rule and say whether one of them drops it.
    #[inline]
    pub fn decide(&mut self, digest: &Digest) -> bool {
        let mut dropped = false;
        for counter in &mut self.rules {
            if counter.rule.applies(digest) {
                dropped |= counter.count(digest, &mut self.untracked);
            }
        }
        dropped
    }
}

impl Counter {
    fn count(&mut self, digest: &Digest, untracked: &mut u64) -> bool {
        let ordinal = match self.rule.per {
            Per::Direction => {
                self.seen += 1;
                self.seen
            }
            Per::Flow => match entry(&mut self.flows, digest.flow_hash(0x5eed) | 1) {
                Some(seen) => {
                    *seen += 1;
                    *seen
                }
                None => {
                    *untracked += 1;
                    return false;
                }
            },
        };
        let asked = self.rule.nth.contains(&ordinal) || self.rule.every.is_some_and(|n| ordinal % n == 0);
        let hit = asked && self.rule.max.is_none_or(|max| self.dropped < max);
        self.dropped += u64::from(hit);
        hit
    }
}

/// The count of the flow with this (non-zero) key, by open addressing.
fn entry(flows: &mut [(u64, u64)], key: u64) -> Option<&mut u64> {
    let start = (key >> 1) as usize % flows.len();
    for probe in 0..32 {
        let at = (start + probe) % flows.len();
        if flows[at].0 == key || flows[at].0 == 0 {
            flows[at].0 = key;
            return Some(&mut flows[at].1);
        }
    }
    None
}

impl Rule {
    fn applies(&self, digest: &Digest) -> bool {
        let kind = match self.matches {
            Match::TcpData => digest.is_tcp_data(),
            Match::TcpSyn => digest.is_syn(),
            Match::TcpSynack => digest.is_synack(),
            Match::TcpFin => digest.is_fin(),
            Match::TcpAck => digest.is_pure_ack(),
            Match::TcpRst => digest.is_rst(),
            Match::Tcp => digest.kind == Kind::Tcp,
            Match::Udp => digest.kind == Kind::Udp,
            Match::Icmp => digest.kind == Kind::Icmp,
            Match::Any => digest.kind != Kind::Chatter,
        };
        let port = |asked: Option<u16>, port| {
            asked.is_none_or(|asked| asked == port && matches!(digest.kind, Kind::Tcp | Kind::Udp))
        };
        kind && port(self.source_port, digest.source_port)
            && port(self.destination_port, digest.destination_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::craft;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    fn dropped(rules: &[Rule], frames: &[Vec<u8>]) -> Vec<usize> {
        let mut exact = Exact::new(rules);
        (0..frames.len()).filter(|&i| exact.decide(&Digest::of(&frames[i]))).collect()
    }

    #[test]
    fn the_second_data_segment_is_dropped_once() {
        let frames: Vec<_> = [(2, 0), (0x10, 0), (0x18, 9), (0x10, 0), (0x18, 9), (0x18, 9), (0x11, 0)]
            .map(|(flags, payload)| craft::tcp(1, flags, 0, payload))
            .into();
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-data","nth":[2]}"#)], &frames), [4]);
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-syn","nth":[1]}"#)], &frames), [0]);
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-ack","nth":[1,2]}"#)], &frames), [1, 3]);
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-fin","every":1}"#)], &frames), [6]);
        assert_eq!(dropped(&[rule(r#"{"match":"any","every":3}"#)], &frames), [2, 5]);
        assert_eq!(dropped(&[rule(r#"{"match":"any","every":1,"max":2}"#)], &frames), [0, 1]);
    }

    #[test]
    fn flows_are_counted_apart() {
        let frames: Vec<_> = [1, 2, 1, 2, 1, 2].map(|port| craft::tcp(port, 0x18, 0, 5)).into();
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-data","nth":[2],"per":"flow"}"#)], &frames), [2, 3]);
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-data","nth":[2]}"#)], &frames), [1]);
        assert_eq!(dropped(&[rule(r#"{"match":"tcp-data","nth":[2],"source_port":2}"#)], &frames), [3]);
    }

    #[test]
    fn more_flows_than_the_table_holds_are_counted() {
        let mut exact = Exact::new(&[rule(r#"{"match":"udp","nth":[1],"per":"flow"}"#)]);
        for port in 0..20_000u16 {
            exact.decide(&Digest::of(&craft::udp(port, 1)));
        }
        assert!(exact.untracked > 10_000);
    }

    #[test]
    fn a_change_of_other_settings_keeps_the_count() {
        let rules = [rule(r#"{"match":"udp","nth":[2]}"#)];
        let mut exact = Exact::new(&rules);
        let datagram = Digest::of(&craft::udp(1, 1));
        assert!(!exact.decide(&datagram));
        let mut fresh = Exact::new(&rules);
        fresh.inherit(exact);
        assert!(fresh.decide(&datagram));
    }
}
