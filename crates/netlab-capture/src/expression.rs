//! A small language for choosing packets, close to what tcpdump's users write:
//!
//! ```text
//! tcp and port 80 and not host 10.0.0.1
//! (udp or icmp) and net 10.0.0.0/8
//! tcp and syn and not ack
//! src host 10.0.0.1 and dst port 443 and len > 100
//! vlan 5 or frame 10-20
//! ```
//!
//! Words: `ip ip6 tcp udp icmp icmp6 sctp`, `[src|dst] host A`, `[src|dst] net A/N`, `[src|dst] port N[-M]`,
//! `syn fin rst ack psh urg ece cwr`, `data` (some payload), `vlan [N]`, `tunnel`, `quoted`,
//! `len|bytes|ttl OP N`, `frame N[-M]`, `not ! and && or ||`, parentheses. A frame is chosen when one of
//! its header chains (outer or inner) satisfies the whole expression.

use std::net::IpAddr;

use crate::error::Error;
use crate::packet::{Chunk, Origin, Packet, Tunnel, flag, mark, proto};
use crate::reader::Record;

/// A parsed condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Both hold.
    And(Box<Expression>, Box<Expression>),
    /// One holds.
    Or(Box<Expression>, Box<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// A test.
    Test(Test),
}

/// Which end a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
    /// One of them.
    Either,
}

/// One word of the language.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// IP version.
    Version(u8),
    /// Protocol.
    Proto(u8),
    /// Address within a prefix.
    Net(End, [u64; 2], u8, u8),
    /// Port within a range.
    Port(End, u16, u16),
    /// TCP flag set.
    Flag(u16),
    /// Some payload.
    Data,
    /// VLAN, any or this.
    Vlan(Option<u16>),
    /// Inside a tunnel.
    Tunnel,
    /// Quoted by an ICMP error.
    Quoted,
    /// Number compared: what, how, with what.
    Number(Number, std::cmp::Ordering, bool, u64),
    /// Frame number within a range.
    Frame(u64, u64),
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Payload octets.
    Len,
    /// Frame octets.
    Bytes,
    /// Time to live.
    Ttl,
}

/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::Request(format!("filter expression: {what}"))
}

fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        let two = rest.get(..2).filter(|t| ["&&", "||", "<=", ">=", "!=", "=="].contains(t));
        let end = if two.is_some() {
            2
        } else if rest.starts_with(['(', ')', '!', '<', '>', '=']) {
            1
        } else {
            rest.find(|c: char| c.is_whitespace() || "()!<>=&|".contains(c)).map_or(rest.len(), |at| {
                if at == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { at }
            })
        };
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Result<&'a str, Error> {
        let word = self.peek().ok_or_else(|| wrong("it ends too early"))?;
        self.at += 1;
        Ok(word)
    }

    fn any(&mut self) -> Result<Expression, Error> {
        let mut left = self.all()?;
        while matches!(self.peek(), Some("or" | "||")) {
            self.at += 1;
            left = Expression::Or(Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Expression, Error> {
        let mut left = self.one()?;
        while matches!(self.peek(), Some("and" | "&&")) {
            self.at += 1;
            left = Expression::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expression, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(wrong("it is nested too deeply"));
        }
        let found = match self.peek() {
            Some("not" | "!") => {
                self.at += 1;
                Expression::Not(Box::new(self.one()?))
            }
            Some("(") => {
                self.at += 1;
                let inner = self.any()?;
                if self.next()? != ")" {
                    return Err(wrong("a closing parenthesis is missing"));
                }
                inner
            }
            _ => Expression::Test(self.test()?),
        };
        self.depth -= 1;
        Ok(found)
    }

    fn test(&mut self) -> Result<Test, Error> {
        let word = self.next()?;
        Ok(match word {
            "ip" => Test::Version(4),
            "ip6" => Test::Version(6),
            "tcp" => Test::Proto(proto::TCP),
            "udp" => Test::Proto(proto::UDP),
            "icmp" => Test::Proto(proto::ICMP),
            "icmp6" => Test::Proto(proto::ICMPV6),
            "sctp" => Test::Proto(proto::SCTP),
            "syn" => Test::Flag(flag::SYN),
            "fin" => Test::Flag(flag::FIN),
            "rst" => Test::Flag(flag::RST),
            "ack" => Test::Flag(flag::ACK),
            "psh" => Test::Flag(flag::PSH),
            "urg" => Test::Flag(flag::URG),
            "ece" => Test::Flag(flag::ECE),
            "cwr" => Test::Flag(flag::CWR),
            "data" => Test::Data,
            "tunnel" => Test::Tunnel,
            "quoted" => Test::Quoted,
            "vlan" => match self.peek().and_then(|word| word.parse().ok()) {
                Some(id) => {
                    self.at += 1;
                    Test::Vlan(Some(id))
                }
                None => Test::Vlan(None),
            },
            "src" => self.end(End::Source)?,
            "dst" => self.end(End::Destination)?,
            "host" | "net" | "port" => {
                self.at -= 1;
                self.end(End::Either)?
            }
            "len" => self.number(Number::Len)?,
            "bytes" => self.number(Number::Bytes)?,
            "ttl" => self.number(Number::Ttl)?,
            "frame" => {
                let (low, high) = range(self.next()?)?;
                Test::Frame(low, high)
            }
            other => return Err(wrong(format!("'{other}' is not understood"))),
        })
    }

    fn end(&mut self, end: End) -> Result<Test, Error> {
        match self.next()? {
            kind @ ("host" | "net") => {
                let text = self.next()?;
                let (address, bits) = match text.split_once('/') {
                    Some((address, bits)) if kind == "net" => (address, Some(bits)),
                    _ => (text, None),
                };
                let address: IpAddr =
                    address.parse().map_err(|_| wrong(format!("'{address}' is no address")))?;
                let (words, version, most) = match address {
                    IpAddr::V4(v4) => ([u64::from(u32::from(v4)), 0], 4, 32),
                    IpAddr::V6(v6) => ([(u128::from(v6) >> 64) as u64, u128::from(v6) as u64], 6, 128),
                };
                let bits = match bits {
                    None => most,
                    Some(bits) => bits
                        .parse()
                        .ok()
                        .filter(|&bits: &u8| bits <= most)
                        .ok_or_else(|| wrong(format!("'/{bits}' is no prefix length")))?,
                };
                Ok(Test::Net(end, words, bits, version))
            }
            "port" => {
                let (low, high) = range(self.next()?)?;
                let port = |n: u64| u16::try_from(n).map_err(|_| wrong(format!("{n} is no port")));
                Ok(Test::Port(end, port(low)?, port(high)?))
            }
            other => Err(wrong(format!("after src or dst comes host, net or port, not '{other}'"))),
        }
    }

    fn number(&mut self, what: Number) -> Result<Test, Error> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let (order, same) = match self.next()? {
            "<" => (Less, true),
            ">" => (Greater, true),
            "=" | "==" => (Equal, true),
            "<=" => (Greater, false),
            ">=" => (Less, false),
            "!=" => (Equal, false),
            other => return Err(wrong(format!("'{other}' is no comparison"))),
        };
        let word = self.next()?;
        let value = word.parse().map_err(|_| wrong(format!("'{word}' is no number")))?;
        Ok(Test::Number(what, order, same, value))
    }
}

fn range(word: &str) -> Result<(u64, u64), Error> {
    let (low, high) = word.split_once('-').unwrap_or((word, word));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low <= high => Ok((low, high)),
        _ => Err(wrong(format!("'{word}' is no number or range"))),
    }
}

fn ends(packet: &Packet) -> ([[u64; 2]; 2], [u16; 2]) {
    let (low, high) = (packet.key.low, packet.key.high);
    let ports = [(packet.key.ports >> 16) as u16, packet.key.ports as u16];
    if packet.marks & mark::REVERSED != 0 {
        ([high, low], [ports[1], ports[0]])
    } else {
        ([low, high], ports)
    }
}

fn either<T: Copy>(end: End, values: [T; 2], holds: impl Fn(T) -> bool) -> bool {
    match end {
        End::Source => holds(values[0]),
        End::Destination => holds(values[1]),
        End::Either => holds(values[0]) || holds(values[1]),
    }
}

fn within(address: [u64; 2], net: [u64; 2], bits: u8, version: u8) -> bool {
    let wide = |a: [u64; 2]| {
        if version == 4 { u128::from(a[0]) << 96 } else { u128::from(a[0]) << 64 | u128::from(a[1]) }
    };
    bits == 0 || (wide(address) ^ wide(net)) >> (128 - u32::from(bits)) == 0
}

impl Expression {
    /// Parse the text of an expression.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { words: words(text), at: 0, depth: 0 };
        let found = parser.any()?;
        match parser.peek() {
            None => Ok(found),
            Some(extra) => Err(wrong(format!("'{extra}' stands where it should end"))),
        }
    }

    /// Whether one of the header chains of a decoded frame satisfies it.
    pub fn frame(&self, chunk: &Chunk, record: &Record, frame: u64) -> bool {
        if chunk.packets.is_empty() {
            let nothing = Packet { bytes: record.original, ..Packet::default() };
            return self.holds(&nothing, Origin::default(), frame);
        }
        chunk.packets.iter().any(|packet| self.holds(packet, crate::flows::origin(packet, chunk), frame))
    }

    fn holds(&self, packet: &Packet, origin: Origin, frame: u64) -> bool {
        match self {
            Self::And(a, b) => a.holds(packet, origin, frame) && b.holds(packet, origin, frame),
            Self::Or(a, b) => a.holds(packet, origin, frame) || b.holds(packet, origin, frame),
            Self::Not(inner) => !inner.holds(packet, origin, frame),
            Self::Test(test) => test.holds(packet, origin, frame),
        }
    }
}

impl Test {
    fn holds(&self, packet: &Packet, origin: Origin, frame: u64) -> bool {
        let (addresses, ports) = ends(packet);
        let is_tcp = packet.key.proto == proto::TCP;
        match *self {
            Self::Version(version) => packet.key.version == version,
            Self::Proto(proto) => packet.key.proto == proto && packet.key.version != 0,
            Self::Net(end, net, bits, version) => {
                packet.key.version == version && either(end, addresses, |a| within(a, net, bits, version))
            }
            Self::Port(end, low, high) => {
                matches!(
                    packet.key.proto,
                    proto::TCP | proto::UDP | proto::SCTP | proto::DCCP | proto::UDPLITE
                ) && either(end, ports, |port| (low..=high).contains(&port))
            }
            Self::Flag(flag) => is_tcp && packet.flags & flag != 0,
            Self::Data => packet.len > 0,
            Self::Vlan(id) => origin.vlan > 0 && id.is_none_or(|id| origin.vlan - 1 == id),
            Self::Tunnel => origin.tunnel != Tunnel::None,
            Self::Quoted => packet.marks & mark::QUOTED != 0,
            Self::Number(what, order, same, value) => {
                let number = match what {
                    Number::Len => packet.len.into(),
                    Number::Bytes => packet.bytes.into(),
                    Number::Ttl => packet.ttl.into(),
                };
                let number: u64 = number;
                (number.cmp(&value) == order) == same
            }
            Self::Frame(low, high) => (low..=high).contains(&frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_signs() {
        assert_eq!(words("len>=100 and(not tcp)"), ["len", ">=", "100", "and", "(", "not", "tcp", ")"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("", "ends too early"),
            ("tcp and", "ends too early"),
            ("host nowhere", "'nowhere' is no address"),
            ("port 70000", "70000 is no port"),
            ("(tcp", "ends too early"),
            ("tcp udp", "'udp' stands where it should end"),
            ("colour red", "'colour' is not understood"),
            ("net 10.0.0.0/40", "no prefix length"),
        ] {
            let error = Expression::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(Expression::parse(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn and_binds_closer_than_or() {
        let Expression::Or(_, right) = Expression::parse("tcp or udp and port 53").unwrap() else { panic!() };
        assert!(matches!(*right, Expression::And(..)));
    }

    #[test]
    fn tests_look_at_the_right_end() {
        let packet = Packet {
            key: crate::packet::Key {
                low: [0x0a000001, 0],
                high: [0x0a000002, 0],
                ports: 80 << 16 | 5000,
                proto: proto::TCP,
                version: 4,
            },
            marks: mark::REVERSED,
            flags: flag::SYN,
            ..Packet::default()
        };
        let holds = |text: &str| Expression::parse(text).unwrap().holds(&packet, Origin::default(), 7);
        assert!(holds("src host 10.0.0.2 and dst port 80 and syn and not ack"));
        assert!(holds("net 10.0.0.0/30 and frame 5-7 and len = 0 and tcp"));
        assert!(!holds("src port 80 or udp or dst net 10.0.0.2/32 or ip6"));
    }
}
