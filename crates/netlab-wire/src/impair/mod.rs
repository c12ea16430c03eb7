//! The impairments decided when a packet arrives, one small file each.
//!
//! Each is built from its settings and the seed, and asked once per packet with the packet's
//! index. Together they are [`Deciders`]: one set for traffic, one for chatter (ARP, neighbour
//! discovery, group upkeep), each with its own count of packets, so that an ARP request at a
//! random moment does not shift the fate of the TCP segments after it.

pub mod corrupt;
pub mod delay;
pub mod exact;
pub mod loss;
pub mod reorder;

use crate::config::{Likelihood, Settings};
use crate::rng::{Chance, Purpose, Stream};

/// The seeded decisions for one class of packets in one direction.
#[derive(Clone, Debug)]
pub struct Deciders {
    /// Whether a packet is lost.
    pub loss: loss::Loss,
    /// Whether it is sent twice.
    pub duplicate: Chance,
    /// Whether and where it is damaged.
    pub corrupt: corrupt::Corrupt,
    /// How long it travels.
    pub delay: delay::Delay,
    /// Whether it leaves its place.
    pub reorder: reorder::Reorder,
}

impl Deciders {
    /// The decisions of `settings`; `lane` tells directions and classes apart.
    #[must_use]
    pub fn new(settings: &Settings, seed: u64, lane: u64) -> Self {
        let stream = |purpose| Stream::new(seed, lane, purpose);
        Self {
            loss: loss::Loss::new(settings.loss.as_ref(), seed, lane),
            duplicate: chance(
                settings.duplicate.as_ref(),
                stream(Purpose::Duplicate),
                stream(Purpose::DuplicateRepeat),
            ),
            corrupt: corrupt::Corrupt::new(settings.corrupt.as_ref(), seed, lane),
            delay: delay::Delay::new(settings.delay_ns, settings.jitter.as_ref(), seed, lane),
            reorder: reorder::Reorder::new(settings.reorder.as_ref(), seed, lane),
        }
    }
}

fn chance(likelihood: Option<&Likelihood>, fresh: Stream, repeat: Stream) -> Chance {
    let (rate, correlation) = likelihood.map_or((0.0, 0.0), |l| (l.rate, l.correlation));
    Chance::new(rate, correlation, fresh, repeat)
}
