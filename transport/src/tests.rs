//! What the crate promises, over loopback.
