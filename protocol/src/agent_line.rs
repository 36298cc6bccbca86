//! The lines that the farm itself writes into a build's log, in CodeBuild's form.
//!
//! Tools look for `Phase complete: X State: Y` and `Phase context status code: C Message: M`, so these
//! are kept to the letter. Pure: the time is an argument.

use std::fmt;

use crate::build::{Outcome, Phase, PhaseContext};
use jiff::{Timestamp, tz::Offset};

/// One line, with its end: `[Container] 2026/05/01 12:00:00.123456 <text>`. The time is UTC, given in
/// microseconds since 1970-01-01; ends of line inside `text` are kept.
pub fn stamp(micros: i64, text: &str) -> String {
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
    let time = Offset::UTC.to_datetime(time);
    format!(
        "[Container] {:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} {text}\n",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.subsec_nanosecond() / 1_000,
    )
}

/// What comes before the first phase: two lines.
pub const OPENING: [&str; 2] = ["Waiting for agent ping", "Waiting for DOWNLOAD_SOURCE"];

/// The phases that a buildspec has: a line for their number, and one for each with its commands.
pub fn found(phases: &[(Phase, u32)]) -> Vec<String> {
    let number = format!("Phases found in YAML: {}", phases.len());
    let each = phases.iter();
    let each = each.map(|(phase, commands)| format!(" {phase}: {commands} commands"));
    std::iter::once(number).chain(each).collect()
}

/// A phase of the buildspec has no commands.
pub fn no_commands(phase: Phase) -> String {
    let name = phase.as_str().to_lowercase();
    format!("No commands found for phase name: {name}")
}

/// A phase starts.
pub fn entering(phase: Phase) -> String {
    match phase {
        Phase::DownloadSource => format!("Phase is {phase}"),
        _ => format!("Entering phase {phase}"),
    }
}

/// A command starts.
pub fn running(command: &str) -> String {
    format!("Running command {command}")
}

/// A command failed.
pub fn failed(command: &str, why: impl fmt::Display) -> String {
    format!("Command did not exit successfully {command} {why}")
}

/// A phase that failed runs again: which try of how many comes now.
pub fn retrying(phase: Phase, (attempt, attempts): (u32, u32)) -> String {
    format!("Retrying phase {phase}: attempt {attempt} of {attempts}")
}

/// A phase has ended: two lines.
pub fn complete(phase: Phase, outcome: Outcome, context: &PhaseContext) -> [String; 2] {
    let PhaseContext {
        status_code,
        message,
    } = context;
    [
        format!("Phase complete: {phase} State: {outcome}"),
        format!("Phase context status code: {status_code} Message: {message}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_stamped_as_codebuild_does() {
        for (micros, time) in [
            (0, "1970/01/01 00:00:00.000000"),
            (951_827_696_000_007, "2000/02/29 12:34:56.000007"),
            (1_767_225_599_999_999, "2025/12/31 23:59:59.999999"),
        ] {
            let line = stamp(micros, "Running command make");
            assert_eq!(line, format!("[Container] {time} Running command make\n"));
        }
    }

    #[test]
    fn the_lines_that_tools_look_for_are_to_the_letter() {
        assert_eq!(
            complete(
                Phase::PreBuild,
                Outcome::Succeeded,
                &PhaseContext::default()
            ),
            [
                "Phase complete: PRE_BUILD State: SUCCEEDED",
                "Phase context status code:  Message: "
            ]
        );
        let context = PhaseContext {
            status_code: "COMMAND_EXECUTION_ERROR".to_owned(),
            message: "Error while executing command: x. Reason: exit status 1".to_owned(),
        };
        assert_eq!(
            complete(Phase::Build, Outcome::Failed, &context)[1],
            "Phase context status code: COMMAND_EXECUTION_ERROR \
             Message: Error while executing command: x. Reason: exit status 1"
        );
        assert_eq!(entering(Phase::Install), "Entering phase INSTALL");
        assert_eq!(
            failed("make", "exit status 2"),
            "Command did not exit successfully make exit status 2"
        );
    }
}
