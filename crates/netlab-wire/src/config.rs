//! What the caller asks for, as JSON: links, ports, the impairments of each direction, schedules.
//!
//! Times are whole nanoseconds (`_ns`), ratios 0…1, rates bits per second, sizes octets. An
//! unknown key, a number out of range or a combination that cannot work is refused with a message
//! that names the place; nothing is corrected silently. `README.md` of this crate shows every key.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::WireError;

/// Octets of the Ethernet header.
pub const ETHERNET: u32 = 14;
/// One hour: longer delays are taken for a mistake in the unit.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Everything one process does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this format; 1.
    pub version: u32,
    /// Inode number of the network namespace in which running is refused (`/proc/PID/ns/net`);
    /// without it, process 1's namespace is meant.
    #[serde(default)]
    pub forbidden_ns: Option<u64>,
    /// The links, each served by one thread.
    pub links: Vec<Link>,
    /// At most so many threads; by default one for each processor, at most one for each link.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Below this distance to the next due time the thread looks at its ports instead of sleeping.
    #[serde(default = "default_spin_ns")]
    pub spin_ns: u64,
    /// While frames keep coming, sleep this long between two looks at the ports; 0 looks all the time.
    #[serde(default = "default_gather_ns")]
    pub gather_ns: u64,
    /// Move many frames of a TAP device in one system call, where the kernel allows it; true unless said otherwise.
    #[serde(default = "yes")]
    pub io_uring: bool,
    /// A departure this much after its due time counts as late.
    #[serde(default = "default_tolerance_ns")]
    pub tolerance_ns: u64,
    /// Be killed when the parent dies (the thread that started this process, `prctl(2)` PR_SET_PDEATHSIG);
    /// true unless said otherwise. Closing the control channel ends the wire in any case.
    #[serde(default = "yes")]
    pub die_with_parent: bool,
    /// Hold the clock of the schedules until the command `start` (else it starts when ready).
    #[serde(default)]
    pub hold_schedule: bool,
}

fn default_spin_ns() -> u64 {
    20_000
}

fn default_gather_ns() -> u64 {
    20_000
}

fn default_tolerance_ns() -> u64 {
    200_000
}

/// One link: two ports and what happens between them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Name used in replies, statistics and the journal.
    pub name: String,
    /// The one seed of every random decision on this link.
    #[serde(default)]
    pub seed: u64,
    /// Largest IP packet; longer frames are counted as oversize and not carried.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// Frames the link can hold at once; by default 65536 (memory is only used when needed).
    #[serde(default)]
    pub buffers: Option<usize>,
    /// One end.
    pub a: PortConfig,
    /// The other end.
    pub b: PortConfig,
    /// Settings from `a` towards `b`; see [`Settings`].
    #[serde(default = "empty")]
    pub a_to_b: Value,
    /// Settings from `b` towards `a`.
    #[serde(default = "empty")]
    pub b_to_a: Value,
    /// Changes of the settings at given times.
    #[serde(default)]
    pub schedule: Vec<Change>,
    /// Where to write what happened to every packet.
    #[serde(default)]
    pub journal: Option<JournalConfig>,
}

fn default_mtu() -> u32 {
    1500
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Where a port is: exactly one of `tap`, `tap_fd`, `packet`, and optionally the namespace it is in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Name of a TAP device to create (or to attach to, if it exists and is persistent).
    #[serde(default)]
    pub tap: Option<String>,
    /// Open descriptor of a TAP device that somebody else made; its namespace is known from it.
    #[serde(default)]
    pub tap_fd: Option<i32>,
    /// Name of an existing interface to open a packet socket on.
    #[serde(default)]
    pub packet: Option<String>,
    /// Path of the network namespace of the device; by default the process's own.
    #[serde(default)]
    pub netns: Option<String>,
    /// The same as an open descriptor.
    #[serde(default)]
    pub netns_fd: Option<i32>,
}

/// Journal of one link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// File to create (an existing file is replaced).
    pub path: String,
    /// Stop recording at this size; what is missed is counted in the header.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Longest time a record waits in memory.
    #[serde(default = "default_flush_ns")]
    pub flush_ns: u64,
}

fn default_flush_ns() -> u64 {
    200_000_000
}

/// The way through a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From port `a` to port `b`.
    AToB,
    /// From port `b` to port `a`.
    BToA,
    /// Both directions.
    Both,
}

impl Way {
    /// Whether direction 0 (a to b) or 1 (b to a) is meant.
    #[must_use]
    pub const fn includes(self, direction: usize) -> bool {
        matches!((self, direction), (Self::Both, _) | (Self::AToB, 0) | (Self::BToA, 1))
    }
}

/// A change of settings at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When, counted from the start of the schedule.
    pub at_ns: u64,
    /// For how long; for good when absent.
    #[serde(default)]
    pub for_ns: Option<u64>,
    /// Which direction.
    #[serde(default = "both")]
    pub direction: Way,
    /// The settings that hold then.
    pub settings: Value,
    /// Lay them over those in force, a key at a time (null removes), instead of replacing them.
    #[serde(default)]
    pub merge: bool,
    /// Made by a command while the wire ran, not written in the configuration.
    #[serde(skip)]
    pub live: bool,
}

fn both() -> Way {
    Way::Both
}

/// What happens to frames in one direction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One-way delay, after the queue and the serialisation.
    #[serde(default)]
    pub delay_ns: u64,
    /// Variation of the delay.
    #[serde(default)]
    pub jitter: Option<Jitter>,
    /// Random loss, behind the rate: a lost packet has used the link.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// Exact losses, by what a packet is and which one it is.
    #[serde(default)]
    pub drop: Vec<Rule>,
    /// Packets that leave their place in the order.
    #[serde(default)]
    pub reorder: Option<Reorder>,
    /// Packets sent twice.
    #[serde(default)]
    pub duplicate: Option<Likelihood>,
    /// Packets with one bit flipped where a checksum notices.
    #[serde(default)]
    pub corrupt: Option<Likelihood>,
    /// Constant rate, or token bucket when it has a burst.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Varying rate: a mahimahi trace. Excludes `rate`.
    #[serde(default)]
    pub trace: Option<Trace>,
    /// The queue before the rate; a pfifo of 1000 packets when absent.
    #[serde(default)]
    pub queue: Option<Queue>,
    /// Most packets under way behind the rate; unlimited (but for the buffers) when absent.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Seed of this direction, instead of the link's.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Variation of the delay.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Half width of the uniform distribution; standard deviation of the others.
    pub ns: u64,
    /// Shape.
    #[serde(default)]
    pub distribution: Distribution,
    /// Correlation of successive packets, 0…1 (first-order autoregressive on normal scores).
    #[serde(default)]
    pub correlation: f64,
    /// Whether jitter alone may reorder packets. By default a packet waits for the one before it.
    #[serde(default)]
    pub reorders: bool,
}

/// Shape of the jitter; each has mean 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Uniform on ±`ns`.
    #[default]
    Uniform,
    /// Normal with standard deviation `ns`, cut at ±4.
    Normal,
    /// Pareto with index 3, shifted to mean 0 and scaled to standard deviation `ns`, cut at +10.
    Pareto,
    /// A quarter normal and three quarters Pareto, at the same quantile, scaled to standard deviation `ns`.
    Paretonormal,
}

/// Random loss: `rate` with `correlation`, or a Gilbert-Elliott channel.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Ratio of packets lost.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Lag-1 autocorrelation of the losses.
    #[serde(default)]
    pub correlation: f64,
    /// Mark ECN-capable packets Congestion Experienced instead of losing them.
    #[serde(default)]
    pub ecn: bool,
    /// Two-state channel instead of a rate.
    #[serde(default)]
    pub gilbert_elliott: Option<GilbertElliott>,
}

/// Two-state channel (Gilbert 1960, Elliott 1963); the state is drawn anew before each packet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GilbertElliott {
    /// Probability of going from good to bad.
    pub p: f64,
    /// Probability of going from bad to good; bad periods last 1/r packets in the mean.
    pub r: f64,
    /// Probability of loss in the bad state.
    #[serde(default = "one")]
    pub bad_loss: f64,
    /// Probability of loss in the good state.
    #[serde(default)]
    pub good_loss: f64,
}

fn one() -> f64 {
    1.0
}

/// Ratio of packets, with correlation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// Ratio of packets.
    pub rate: f64,
    /// Lag-1 autocorrelation.
    #[serde(default)]
    pub correlation: f64,
}

/// Packets that leave their place in the order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reorder {
    /// Ratio of packets.
    pub rate: f64,
    /// Lag-1 autocorrelation.
    #[serde(default)]
    pub correlation: f64,
    /// Only every `gap`-th packet is a candidate.
    #[serde(default = "one_packet")]
    pub gap: u64,
    /// Hold the packet back by this much instead of sending it ahead without delay.
    #[serde(default)]
    pub hold_ns: Option<u64>,
}

fn one_packet() -> u64 {
    1
}

/// What packets an exact rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// TCP segments with payload.
    TcpData,
    /// SYN without ACK.
    TcpSyn,
    /// SYN and ACK.
    TcpSynack,
    /// FIN set.
    TcpFin,
    /// ACK and nothing else.
    TcpAck,
    /// RST set.
    TcpRst,
    /// Any TCP segment.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 without neighbour discovery.
    Icmp,
    /// Every packet except neighbour discovery, ARP and group upkeep.
    Any,
}

/// What a rule's count runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// All matching packets of the direction.
    #[default]
    Direction,
    /// The matching packets of each flow (five-tuple) on its own.
    Flow,
}

/// An exact loss: of the packets that match, those with the given ordinals.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is counted.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Which to drop, from 1. A retransmission is one more packet.
    #[serde(default)]
    pub nth: Vec<u64>,
    /// Drop each `every`-th.
    #[serde(default)]
    pub every: Option<u64>,
    /// What the count runs over.
    #[serde(default)]
    pub per: Per,
    /// Drop at most so many in all.
    #[serde(default)]
    pub max: Option<u64>,
    /// Only packets from this transport port.
    #[serde(default)]
    pub source_port: Option<u16>,
    /// Only packets to this transport port.
    #[serde(default)]
    pub destination_port: Option<u16>,
}

/// Constant rate or token bucket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bits per second of Ethernet frames (without preamble, FCS and gap: see `overhead_bytes`).
    pub bits_per_second: u64,
    /// Added to the length of each frame, may be negative: 24 makes it the rate of real Ethernet, -14 of IP.
    #[serde(default)]
    pub overhead_bytes: i32,
    /// Link-layer cells of so many octets of payload each: the last one is filled up.
    #[serde(default)]
    pub cell_bytes: u32,
    /// Octets of header that each cell has besides.
    #[serde(default)]
    pub cell_overhead_bytes: u32,
    /// Token bucket of this depth: a burst passes at once, then packets keep to the rate.
    #[serde(default)]
    pub burst_bytes: Option<u64>,
    /// Even the burst of a token bucket leaves no faster than this.
    #[serde(default)]
    pub peak_bits_per_second: Option<u64>,
}

/// A mahimahi trace: the times at which the link could deliver one MTU-sized packet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Milliseconds of each opportunity, not decreasing; repeated with the last one as period.
    #[serde(default)]
    pub ms: Vec<u64>,
    /// The same read from a file of one number a line.
    #[serde(default)]
    pub path: Option<String>,
    /// Octets of IP that one opportunity carries.
    #[serde(default = "default_opportunity")]
    pub opportunity_bytes: u32,
}

fn default_opportunity() -> u32 {
    1500
}

/// A queue discipline; limits hold for what waits, the packet being sent is not counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Queue {
    /// First in, first out, limited in packets.
    Pfifo {
        /// Most packets waiting.
        packets: u32,
    },
    /// First in, first out, limited in octets of frames.
    Bfifo {
        /// Most octets waiting.
        bytes: u64,
    },
    /// CoDel (RFC 8289).
    Codel {
        /// Most packets waiting.
        #[serde(default = "default_codel_packets")]
        packets: u32,
        /// Acceptable standing delay.
        #[serde(default = "default_target_ns")]
        target_ns: u64,
        /// Time in which the delay must fall below the target.
        #[serde(default = "default_interval_ns")]
        interval_ns: u64,
        /// Mark ECN-capable packets instead of dropping them.
        #[serde(default)]
        ecn: bool,
    },
    /// FQ-CoDel (RFC 8290).
    FqCodel {
        /// Most packets waiting in all flows.
        #[serde(default = "default_fq_packets")]
        packets: u32,
        /// Most octets waiting in all flows.
        #[serde(default = "default_fq_bytes")]
        bytes: u64,
        /// Number of flow queues.
        #[serde(default = "default_flows")]
        flows: u32,
        /// Octets a flow may send in one round.
        #[serde(default = "default_quantum")]
        quantum: u32,
        /// Acceptable standing delay.
        #[serde(default = "default_target_ns")]
        target_ns: u64,
        /// Time in which the delay must fall below the target.
        #[serde(default = "default_interval_ns")]
        interval_ns: u64,
        /// Mark ECN-capable packets instead of dropping them.
        #[serde(default = "yes")]
        ecn: bool,
    },
}

fn default_codel_packets() -> u32 {
    1000
}

fn default_fq_packets() -> u32 {
    10_240
}

fn default_fq_bytes() -> u64 {
    32 << 20
}

fn default_flows() -> u32 {
    1024
}

fn default_quantum() -> u32 {
    1514
}

fn default_target_ns() -> u64 {
    5_000_000
}

fn default_interval_ns() -> u64 {
    100_000_000
}

fn yes() -> bool {
    true
}

impl Config {
    /// Parse and validate.
    ///
    /// # Errors
    /// `WireError::Config` with the place and the reason.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let config: Self = serde_json::from_str(text).map_err(|e| refuse("config", e))?;
        if config.version != 1 {
            return Err(refuse("version", format!("{} is not known; this program speaks 1", config.version)));
        }
        if config.links.is_empty() {
            return Err(refuse("links", "a wire without links does nothing"));
        }
        for (i, link) in config.links.iter().enumerate() {
            if config.links[..i].iter().any(|other| other.name == link.name) {
                return Err(refuse("links", format!("two links are named '{}'", link.name)));
            }
            link.validate()?;
        }
        Ok(config)
    }
}

impl Link {
    fn validate(&self) -> Result<(), WireError> {
        let at = |what: &str| format!("link '{}': {what}", self.name);
        if !(68..=65_535).contains(&self.mtu) {
            return Err(refuse(&at("mtu"), format!("{} is outside 68…65535", self.mtu)));
        }
        if self.buffers.is_some_and(|n| !(16..=4_194_304).contains(&n)) {
            return Err(refuse(&at("buffers"), "must be 16…4194304"));
        }
        for (end, port) in [("a", &self.a), ("b", &self.b)] {
            let kinds = [port.tap.is_some(), port.tap_fd.is_some(), port.packet.is_some()];
            if kinds.into_iter().filter(|&given| given).count() != 1 {
                return Err(refuse(&at(end), "give either 'tap', 'tap_fd' or 'packet'"));
            }
            let places = [port.tap_fd.is_some(), port.netns.is_some(), port.netns_fd.is_some()];
            if places.into_iter().filter(|&given| given).count() > 1 {
                return Err(refuse(&at(end), "give one of 'tap_fd', 'netns' and 'netns_fd'"));
            }
        }
        // Every settings that will ever be in force must be valid before anything starts.
        crate::schedule::Timeline::new(self)?;
        Ok(())
    }

    /// The settings of direction 0 or 1 as written.
    #[must_use]
    pub const fn settings(&self, direction: usize) -> &Value {
        if direction == 0 { &self.a_to_b } else { &self.b_to_a }
    }
}

impl Settings {
    /// Parse and validate the settings of one direction of a link with the given MTU.
    ///
    /// # Errors
    /// `WireError::Config` with `place` and the reason.
    pub fn parse(value: &Value, place: &str, mtu: u32) -> Result<Self, WireError> {
        let mut settings: Self = serde_json::from_value(value.clone()).map_err(|e| refuse(place, e))?;
        if let Some(trace) = &mut settings.trace {
            trace.load(place)?;
        }
        settings.validate(place, mtu)?;
        Ok(settings)
    }

    fn validate(&self, place: &str, mtu: u32) -> Result<(), WireError> {
        let no = |what: &str, why: String| Err(refuse(&format!("{place}.{what}"), why));
        let ratio = |what: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                no(what, format!("{value} is not a ratio 0…1"))
            }
        };
        if self.delay_ns > LONGEST_NS {
            return no("delay_ns", "is more than an hour; times are nanoseconds".into());
        }
        if let Some(jitter) = &self.jitter {
            if jitter.ns > LONGEST_NS {
                return no("jitter.ns", "is more than an hour; times are nanoseconds".into());
            }
            ratio("jitter.correlation", jitter.correlation)?;
        }
        if let Some(loss) = &self.loss {
            ratio("loss.rate", loss.rate.unwrap_or(0.0))?;
            ratio("loss.correlation", loss.correlation)?;
            match (&loss.rate, &loss.gilbert_elliott) {
                (Some(_), Some(_)) | (None, None) => {
                    return no("loss", "give either 'rate' or 'gilbert_elliott'".into());
                }
                (None, Some(ge)) => {
                    if loss.correlation != 0.0 {
                        return no("loss.correlation", "a Gilbert-Elliott channel has its own".into());
                    }
                    for (what, value) in
                        [("p", ge.p), ("r", ge.r), ("bad_loss", ge.bad_loss), ("good_loss", ge.good_loss)]
                    {
                        ratio(&format!("loss.gilbert_elliott.{what}"), value)?;
                    }
                    if ge.p + ge.r <= 0.0 {
                        return no(
                            "loss.gilbert_elliott",
                            "p and r are both 0: the state never changes".into(),
                        );
                    }
                }
                (Some(_), None) => {}
            }
        }
        for rule in &self.drop {
            if rule.nth.is_empty() && rule.every.is_none() {
                return no("drop", "a rule needs 'nth' or 'every'".into());
            }
            if rule.nth.contains(&0) || rule.every == Some(0) {
                return no("drop", "packets are counted from 1".into());
            }
        }
        if let Some(reorder) = &self.reorder {
            ratio("reorder.rate", reorder.rate)?;
            ratio("reorder.correlation", reorder.correlation)?;
            if reorder.gap == 0 {
                return no("reorder.gap", "must be at least 1".into());
            }
            if reorder.hold_ns.is_none() && self.delay_ns == 0 {
                return no(
                    "reorder",
                    "a packet can only overtake others where there is a delay; give 'hold_ns'".into(),
                );
            }
            if reorder.hold_ns.is_some_and(|ns| ns == 0 || ns > LONGEST_NS) {
                return no("reorder.hold_ns", "must be above 0 and at most an hour".into());
            }
        }
        for (what, likelihood) in [("duplicate", &self.duplicate), ("corrupt", &self.corrupt)] {
            if let Some(likelihood) = likelihood {
                ratio(&format!("{what}.rate"), likelihood.rate)?;
                ratio(&format!("{what}.correlation"), likelihood.correlation)?;
            }
        }
        if let Some(rate) = &self.rate {
            if self.trace.is_some() {
                return no("rate", "a link follows a rate or a trace, not both".into());
            }
            if !(1..=1_000_000_000_000).contains(&rate.bits_per_second) {
                return no("rate.bits_per_second", "must be 1…10^12".into());
            }
            if !(-40..=1000).contains(&rate.overhead_bytes) {
                return no("rate.overhead_bytes", "must be -40…1000".into());
            }
            if rate.cell_bytes > 65_535 || rate.cell_overhead_bytes > 1000 {
                return no("rate.cell_bytes", "at most 65535, with an overhead of at most 1000".into());
            }
            let largest = rate.octets(mtu + ETHERNET);
            if rate.burst_bytes.is_some_and(|burst| burst < largest) {
                return no("rate.burst_bytes", format!("a full packet of {largest} octets would never pass"));
            }
            if rate.peak_bits_per_second.is_some_and(|peak| peak <= rate.bits_per_second) {
                return no("rate.peak_bits_per_second", "must be above the rate".into());
            }
            if rate.peak_bits_per_second.is_some() && rate.burst_bytes.is_none() {
                return no(
                    "rate.peak_bits_per_second",
                    "only a token bucket (burst_bytes) has a peak".into(),
                );
            }
        }
        if self.limit == Some(0) {
            return no("limit", "at least 1 packet".into());
        }
        self.validate_queue(&no)
    }

    fn validate_queue(&self, no: &dyn Fn(&str, String) -> Result<(), WireError>) -> Result<(), WireError> {
        let Some(queue) = &self.queue else { return Ok(()) };
        if self.rate.is_none() && self.trace.is_none() {
            return no("queue", "a queue only fills before a 'rate' or 'trace'".into());
        }
        match *queue {
            Queue::Pfifo { packets: 0 } | Queue::Bfifo { bytes: 0 } => {
                no("queue", "a limit of 0 lets nothing wait; at least 1".into())
            }
            Queue::Codel { target_ns, interval_ns, .. } | Queue::FqCodel { target_ns, interval_ns, .. }
                if target_ns == 0 || interval_ns <= target_ns =>
            {
                no("queue", "0 < target_ns < interval_ns".into())
            }
            Queue::FqCodel { flows, quantum, .. } if !(1..=65_536).contains(&flows) || quantum < 64 => {
                no("queue", "flows 1…65536, quantum at least 64".into())
            }
            _ => Ok(()),
        }
    }
}

impl Rate {
    /// What a frame of `len` octets takes of the link, with overhead and whole cells.
    #[must_use]
    pub fn octets(&self, len: u32) -> u64 {
        let octets = (i64::from(len) + i64::from(self.overhead_bytes)).max(0) as u64;
        match u64::from(self.cell_bytes) {
            0 => octets,
            cell => octets.div_ceil(cell) * (cell + u64::from(self.cell_overhead_bytes)),
        }
    }
}

impl Trace {
    fn load(&mut self, place: &str) -> Result<(), WireError> {
        let at = format!("{place}.trace");
        if let Some(path) = self.path.take() {
            if !self.ms.is_empty() {
                return Err(refuse(&at, "give either 'ms' or 'path'"));
            }
            let text = std::fs::read_to_string(&path).map_err(|e| refuse(&at, format!("{path}: {e}")))?;
            for (i, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() {
                    continue;
                }
                let ms = line.parse().map_err(|_| refuse(&at, format!("{path}:{}: '{line}'", i + 1)))?;
                self.ms.push(ms);
            }
        }
        if self.ms.windows(2).any(|pair| pair[1] < pair[0]) {
            return Err(refuse(&at, "times must not decrease"));
        }
        if self.ms.last().is_none_or(|&last| last == 0 || last > LONGEST_NS / 1_000_000) {
            return Err(refuse(&at, "the last time, which is the period, must be 1 ms … 1 h"));
        }
        if self.opportunity_bytes == 0 {
            return Err(refuse(&at, "opportunity_bytes must be above 0"));
        }
        Ok(())
    }
}

/// Overlay `patch` on `base` (RFC 7396): objects merge, null removes, anything else replaces.
pub fn merge(base: &mut Value, patch: &Value) {
    if let (Value::Object(base), Value::Object(patch)) = (&mut *base, patch) {
        for (key, value) in patch {
            // One level only: a loss given anew replaces the old loss, it does not mix with it.
            if value.is_null() {
                base.remove(key);
            } else {
                base.insert(key.clone(), value.clone());
            }
        }
    } else {
        *base = patch.clone();
    }
}

/// A refusal at `place`.
pub(crate) fn refuse(place: &str, why: impl std::fmt::Display) -> WireError {
    WireError::Config(format!("{place}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> Result<Settings, String> {
        Settings::parse(&value, "a_to_b", 1500).map_err(|e| e.to_string())
    }

    #[test]
    fn the_documented_example_is_accepted() {
        let readme = include_str!("../README.md");
        let start = readme.find("```json").unwrap() + 7;
        let end = start + readme[start..].find("```").unwrap();
        Config::parse(&readme[start..end]).unwrap();
    }

    #[test]
    fn mistakes_are_refused_with_the_place() {
        for (value, part) in [
            (json!({"dealy_ns": 1}), "unknown field `dealy_ns`"),
            (json!({"loss": {"rate": 1.5}}), "a_to_b.loss.rate: 1.5 is not a ratio"),
            (json!({"loss": {}}), "either 'rate' or 'gilbert_elliott'"),
            (json!({"queue": {"kind": "pfifo", "packets": 5}}), "only fills before"),
            (json!({"reorder": {"rate": 0.1}}), "hold_ns"),
            (json!({"rate": {"bits_per_second": 1000, "burst_bytes": 100}}), "never pass"),
            (json!({"drop": [{"match": "tcp-data"}]}), "'nth' or 'every'"),
            (json!({"drop": [{"match": "tcp-data", "nth": [0]}]}), "from 1"),
            (json!({"trace": {"ms": [5, 3]}}), "must not decrease"),
            (json!({"queue": {"kind": "red"}}), "unknown variant `red`"),
            (json!({"delay_ns": 3_600_000_000_001u64}), "more than an hour"),
        ] {
            let error = settings(value.clone()).unwrap_err();
            assert!(error.contains(part), "{value}: {error}");
        }
    }

    #[test]
    fn a_patch_replaces_whole_impairments() {
        let mut base = json!({"delay_ns": 5, "loss": {"rate": 0.1, "correlation": 0.5}});
        merge(&mut base, &json!({"loss": {"rate": 1.0}, "delay_ns": null}));
        assert_eq!(base, json!({"loss": {"rate": 1.0}}));
    }
}
