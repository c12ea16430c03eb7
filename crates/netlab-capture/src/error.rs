//! What can go wrong for good; damage inside a capture is not an error but a warning in the summary.

use std::fmt;

/// A capture that could not be read at all, or a run that was stopped.
#[derive(Debug)]
pub enum Error {
    /// The system refused; what was attempted, and its answer.
    Io(String, std::io::Error),
    /// The bytes are no capture we know; the sentence says what they look like.
    NotACapture(String),
    /// A request that cannot be met (unknown stream, contradictory options).
    Request(String),
    /// The progress callback asked to stop.
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(out, "{what}: {error}"),
            Self::NotACapture(what) | Self::Request(what) => out.write_str(what),
            Self::Interrupted => out.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}
