//! What tests and benchmarks share: a real farm of real processes on loopback, source trees from text,
//! waiting for states, the simulation. Nothing that ships depends on this crate.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on has failed, and panicking is how it says so"
)]

pub mod farm;
pub mod network;
pub mod process;
pub mod program;
pub mod project;
pub mod random;
pub mod simulation;
pub mod wait;

/// Says that a test cannot be run on this machine, and why; it counts as passed.
pub fn skip(why: &str) {
    tell(&format!("skipped: {why}"));
}

/// Tells whoever reads the test's output.
#[expect(
    clippy::print_stderr,
    reason = "who reads the test's output has to know"
)]
pub fn tell(text: &str) {
    eprintln!("{text}");
}

/// Whether slow tests are to run: `GRANGE_SLOW_TESTS=1`.
#[expect(
    clippy::disallowed_methods,
    reason = "the one variable that tests read"
)]
pub fn slow_tests() -> bool {
    std::env::var("GRANGE_SLOW_TESTS").is_ok_and(|value| value == "1")
}
