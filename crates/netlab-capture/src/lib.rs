//! Reads packet captures and says what the connections in them did.
//!
//! The way of a packet: [`source`] opens bytes (a guarded mapping, a pipe, gz, zstd), [`reader`] finds
//! the records of a pcap or pcapng in them, [`wire`] decodes the headers of one record into
//! [`packet::Packet`] descriptors (one per analysed layer: a tunnelled packet has two), [`flows`] finds
//! the flow of each descriptor and [`tcp`] advances its state by the rules Wireshark and tcptrace use.
//! [`engine`] drives this in chunks on one thread or several; [`summary`] is what remains at the end.
//!
//! Architecture invariants: no unsafe code, no panic on any bytes, no allocation per packet, and output
//! that does not depend on chunk size, thread count, the way the bytes arrive or the container format.
#![forbid(unsafe_code)]

pub mod engine;
pub mod error;
pub mod expression;
pub mod flows;
pub mod packet;
pub mod reader;
pub mod rewrite;
pub mod schema;
pub mod segments;
pub mod shard;
pub mod source;
pub mod summary;
pub mod table;
pub mod tcp;
pub mod wire;
pub mod writer;

pub use engine::{Options, Semantics, summarize};
pub use error::Error;
pub use summary::Summary;
