//! A userspace link for network namespaces: delay, loss, order, rate and queues as asked, seeded, journalled.
//!
//! ```text
//!            port a ──► Direction a→b ──► port b        Port       TAP device or packet socket
//!            port a ◄── Direction b→a ◄── port b        Direction  pure: (now, frame) in, frames due out
//!                         │
//!                 Journal and Counters                  run        the event loop, the only impure part
//! ```
//!
//! [`direction::Direction`] holds everything that decides a packet's fate and is tested with a
//! simulated clock, without privileges. [`run::run`] moves real packets.
#![deny(unsafe_code)]

pub mod config;
pub mod control;
pub mod direction;
pub mod impair;
pub mod journal;
pub mod packet;
pub mod pool;
pub mod port;
pub mod queue;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod stats;
#[allow(unsafe_code, reason = "the system calls that the standard library lacks are all here")]
mod sys;

pub use run::run;

/// Why a wire could not be built or kept running.
#[derive(Debug)]
pub enum WireError {
    /// The configuration or a command is wrong: the author's fault.
    Config(String),
    /// Running here would touch a network namespace that is not ours.
    Forbidden(String),
    /// The machine refused something; what was attempted and what it said.
    System(String, std::io::Error),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(why) | Self::Forbidden(why) => f.write_str(why),
            Self::System(what, why) => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for WireError {}

impl WireError {
    /// A word for the kind of error: `config`, `forbidden` or `system`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Forbidden(_) => "forbidden",
            Self::System(..) => "system",
        }
    }
}

pub(crate) trait Attempt<T> {
    /// Say what was attempted when it fails.
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T, WireError>;
}

impl<T> Attempt<T> for std::io::Result<T> {
    fn attempting(self, what: impl FnOnce() -> String) -> Result<T, WireError> {
        self.map_err(|error| WireError::System(what(), error))
    }
}
