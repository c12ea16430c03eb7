//! Reads packet captures and says what the connections in them did.
#![forbid(unsafe_code)]
