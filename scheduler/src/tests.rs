//! Scripts of what happens, and transcripts of what the scheduler does about it.
//!
//! A script has an event per line; [`script`] has the words. A transcript has what was decided and what
//! is sent, in order; the acknowledgement of a result that was taken is left out.

mod builds;
mod conduct;
mod drain;
mod facts;
mod leases;
mod leaving_again;
mod placement;
mod projects;
mod queries;
mod reruns;
mod retention;
mod sample;
mod script;
mod snapshots;
mod stops;
mod workers;

use crate::tests::script::Farm;

/// Plays `script` and compares what the scheduler did with `expected`, line by line.
#[track_caller]
fn check(script: &str, expected: &str) {
    let mut farm = Farm::default();
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    for line in lines(script) {
        farm.play(&line);
    }
    farm.check_ledger();
    let (found, expected) = (farm.transcript, lines(expected));
    assert!(
        found == expected,
        "found:\n{}\n\nexpected:\n{}\n",
        found.join("\n"),
        expected.join("\n")
    );
}
