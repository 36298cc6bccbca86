//! Versions of what programs say to each other and keep.

/// The version of the messages. Programs of different versions refuse each other by name.
pub const PROTOCOL: u32 = 9;

/// The version of this program, as people know it.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");
