//! The control channel: JSON objects, one a line, in both directions over one descriptor.
//!
//! Events come unasked (`{"event": "ready", ...}`), every command gets one reply
//! (`{"ok": true, ...}` or `{"ok": false, "error": {"kind": ..., "message": ...}}`). When the
//! other side closes the channel the wire quits.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::WireError;
use crate::config::{Way, refuse};

/// What can be asked of a running wire.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Counters of every link.
    Stats {},
    /// Start the clock of the schedules (with `hold_schedule`), or start it anew.
    Start {},
    /// Change the settings of a link without losing a packet.
    Set {
        /// Which link; may be left out when there is only one.
        #[serde(default)]
        link: Option<String>,
        /// Which direction.
        #[serde(default = "both")]
        direction: Way,
        /// The settings.
        settings: Value,
        /// Lay them over those in force instead of replacing them.
        #[serde(default)]
        merge: bool,
        /// Only for so long.
        #[serde(default)]
        for_ns: Option<u64>,
        /// With `for_ns`: what holds afterwards, instead of what held before.
        #[serde(default)]
        then: Option<Value>,
    },
    /// Write out the journals.
    Flush {},
    /// Stop; the reply has the last counters.
    Quit {},
}

fn both() -> Way {
    Way::Both
}

/// Longest line accepted.
const LONGEST: usize = 1 << 20;

/// Our end of the channel.
#[derive(Debug)]
pub struct Channel {
    file: File,
    gathered: Vec<u8>,
}

/// What `Channel::receive` found.
#[derive(Debug)]
pub enum Incoming {
    /// A command, or why the line is none.
    Line(Result<Command, WireError>),
    /// The other side is gone.
    Closed,
}

impl Channel {
    /// Take over a stream socket (or anything that reads and writes).
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Self {
        Self { file: File::from(descriptor), gathered: Vec::new() }
    }

    /// What to wait on.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Read once and answer the whole lines that have come.
    pub fn receive(&mut self) -> Vec<Incoming> {
        let mut raw = [0; 65_536];
        let mut out = Vec::new();
        match self.file.read(&mut raw) {
            Ok(0) => return vec![Incoming::Closed],
            Ok(n) => self.gathered.extend_from_slice(&raw[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => return out,
            Err(_) => return vec![Incoming::Closed],
        }
        while let Some(end) = self.gathered.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = self.gathered.drain(..=end).collect();
            if !line.trim_ascii().is_empty() {
                out.push(Incoming::Line(serde_json::from_slice(&line).map_err(|e| refuse("command", e))));
            }
        }
        if self.gathered.len() > LONGEST {
            self.gathered.clear();
            out.push(Incoming::Line(Err(refuse("command", "a line of more than 1 MiB"))));
        }
        out
    }

    /// Send one line.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn send(&mut self, value: &Value) -> io::Result<()> {
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The reply to a command that failed.
#[must_use]
pub fn failure(error: &WireError) -> Value {
    json!({"ok": false, "error": {"kind": error.kind(), "message": error.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_are_commands_however_they_are_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(ours.into());
        theirs.write_all(b"{\"cmd\":\"stats\"}\n{\"cmd\":\"se").unwrap();
        assert!(matches!(channel.receive()[..], [Incoming::Line(Ok(Command::Stats {}))]));
        theirs.write_all(b"t\",\"settings\":{\"delay_ns\":5}}\n{\"cmd\":\"fly\"}\n").unwrap();
        let lines = channel.receive();
        assert!(matches!(&lines[0], Incoming::Line(Ok(Command::Set { direction: Way::Both, .. }))));
        assert!(matches!(&lines[1], Incoming::Line(Err(WireError::Config(why))) if why.contains("fly")));
        drop(theirs);
        assert!(matches!(channel.receive()[..], [Incoming::Closed]));
    }
}
