//! What tests and benchmarks share: a real farm of real processes on loopback, source trees from text,
//! waiting for states, the simulation. Nothing that ships depends on this crate.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on has failed, and panicking is how it says so"
)]

pub mod bucket;
pub mod farm;
pub mod network;
pub mod process;
pub mod program;
pub mod project;
pub mod random;
pub mod relay;
pub mod simulation;
pub mod wait;

use std::path::PathBuf;

/// Says that a test cannot be run on this machine, and why; it counts as passed.
pub fn skip(why: &str) {
    tell(&format!("skipped: {why}"));
}

/// Says that this machine cannot do what a test is about, and why; the test counts as passed, but not in the
/// slow run, nor with `GRANGE_NO_SKIP=1`: nothing would be proved there, and nobody would see it.
pub fn cannot(why: &str) {
    let must = slow_tests() || variable("GRANGE_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!must, "this machine has to be able to: {why}");
    skip(why);
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
pub fn slow_tests() -> bool {
    variable("GRANGE_SLOW_TESTS").is_some_and(|value| value == "1")
}

/// The directory with real buildspecs, which are not in the repository: `GRANGE_CORPUS`; `None` if it is
/// not set.
pub fn corpus() -> Option<PathBuf> {
    variable("GRANGE_CORPUS").map(PathBuf::from)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests read the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
