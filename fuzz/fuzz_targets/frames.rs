//! Streams of frames, as they come over a connection.
#![no_main]

#[expect(dead_code, reason = "each program runs one of them")]
#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::frames(bytes));
