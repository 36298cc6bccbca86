//! One attempt at a phase, as a machine: which command comes next, and what came of it all.
//!
//! Pure. Whoever runs the commands asks for the [`next`](Attempt::next) one, says how it
//! [`exited`](Attempt::exited), and interrupts the attempt when the world wants
//! it to end. The commands run in order up to the first that fails, and those of `finally` run in any
//! case, up to the first of them that fails.

use std::fmt;

use protocol::{
    build::{Outcome, PhaseContext},
    job::PhaseCommands,
};

/// How a command ended: its exit status as shells count it, so 128 and the number of a signal that
/// ended it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Exit(pub(crate) i32);

impl Exit {
    /// Whether the command did what it should.
    pub(crate) const fn is_success(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

/// Why an attempt has to end before its commands have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interrupt {
    /// Somebody stopped the build.
    Stopped,
    /// The time limit is reached.
    TimedOut,
    /// The right to it is lost: nothing is reported.
    Lost,
}

impl Interrupt {
    /// What the attempt reports; `None`: nothing.
    pub(crate) fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Stopped => Some(Verdict {
                outcome: Outcome::Stopped,
                context: PhaseContext::default(),
            }),
            Self::TimedOut => Some(Verdict {
                outcome: Outcome::TimedOut,
                context: context("BUILD_TIMED_OUT", "Build has timed out.".to_owned()),
            }),
            Self::Lost => None,
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step<'a> {
    /// Run this command.
    Run(&'a str),
    /// The commands have ended.
    End,
}

/// What came of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Why.
    pub(crate) context: PhaseContext,
}

impl Verdict {
    /// Everything went well.
    pub(crate) fn succeeded() -> Self {
        Self {
            outcome: Outcome::Succeeded,
            context: PhaseContext::default(),
        }
    }

    /// What the user asked for cannot be done.
    pub(crate) fn client_error(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            context: context("CLIENT_ERROR", message.into()),
        }
    }

    /// The buildspec asks for what is not there.
    pub(crate) fn yaml_error(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            context: context("YAML_FILE_ERROR", message.into()),
        }
    }

    /// The farm failed; `message` says at what.
    pub(crate) fn fault(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Fault,
            context: context("INTERNAL_SERVICE_ERROR", message.into()),
        }
    }
}

/// The commands of a phase on their way.
#[derive(Clone, Debug)]
pub(crate) struct Attempt<'a> {
    phase: &'a PhaseCommands,
    /// How many of `commands`, followed by `finally`, are behind.
    behind: usize,
    /// The first failure.
    failure: Option<PhaseContext>,
    /// Whether one of `finally` has failed.
    finally_failed: bool,
}

impl<'a> Attempt<'a> {
    /// At the start of `phase`.
    pub(crate) const fn new(phase: &'a PhaseCommands) -> Self {
        Self {
            phase,
            behind: 0,
            failure: None,
            finally_failed: false,
        }
    }

    /// What comes next. Asking twice gives the same.
    pub(crate) fn next(&self) -> Step<'a> {
        if self.finally_failed {
            return Step::End;
        }
        let commands = &self.phase.commands;
        let next = match commands.get(self.behind) {
            Some(command) => Some(command),
            None => self.phase.finally.get(self.behind - commands.len()),
        };
        next.map_or(Step::End, |command| Step::Run(command))
    }

    /// The command that came next has ended so.
    ///
    /// # Panics
    ///
    /// If no command came next.
    pub(crate) fn exited(&mut self, exit: Exit) {
        self.ended((!exit.is_success()).then(|| exit.to_string()));
    }

    /// The command that came next could not be started, for this reason.
    ///
    /// # Panics
    ///
    /// If no command came next.
    pub(crate) fn refused(&mut self, why: &str) {
        self.ended(Some(why.to_owned()));
    }

    /// The command that came next has failed for this reason; `None`: it did what it should.
    fn ended(&mut self, why: Option<String>) {
        let Step::Run(command) = self.next() else {
            panic!("a command that ended was started before");
        };
        let in_finally = self.phase.commands.len() <= self.behind;
        self.behind += 1;
        let Some(why) = why else {
            return;
        };
        if self.failure.is_none() {
            let message = format!("Error while executing command: {command}. Reason: {why}");
            self.failure = Some(context("COMMAND_EXECUTION_ERROR", message));
        }
        if in_finally {
            self.finally_failed = true;
        } else {
            self.behind = self.phase.commands.len();
        }
    }

    /// What came of it: the first failure counts.
    pub(crate) fn verdict(self) -> Verdict {
        match self.failure {
            None => Verdict::succeeded(),
            Some(context) => Verdict {
                outcome: Outcome::Failed,
                context,
            },
        }
    }
}

fn context(status_code: &str, message: String) -> PhaseContext {
    PhaseContext {
        status_code: status_code.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a phase in which each command starts with the exit status that it gives.
    #[track_caller]
    fn check(commands: &[&str], finally: &[&str], ran: &str, outcome: Outcome, message: &str) {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let phase = PhaseCommands {
            commands: owned(commands),
            finally: owned(finally),
            ..PhaseCommands::default()
        };
        let mut attempt = Attempt::new(&phase);
        let mut seen = Vec::new();
        while let Step::Run(command) = attempt.next() {
            seen.push(command);
            let (word, _) = command.split_once(' ').unwrap_or((command, ""));
            attempt.exited(Exit(word.parse().unwrap()));
        }
        assert_eq!(seen.join(", "), ran);
        let verdict = attempt.verdict();
        assert_eq!(verdict.outcome, outcome);
        assert_eq!(verdict.context.message, message);
        let code = if outcome == Outcome::Failed {
            "COMMAND_EXECUTION_ERROR"
        } else {
            ""
        };
        assert_eq!(verdict.context.status_code, code);
    }

    #[test]
    fn commands_run_in_order_and_finally_after_them() {
        check(
            &["0 a", "0 b"],
            &["0 c"],
            "0 a, 0 b, 0 c",
            Outcome::Succeeded,
            "",
        );
        check(&[], &["0 c"], "0 c", Outcome::Succeeded, "");
        check(&[], &[], "", Outcome::Succeeded, "");
    }

    #[test]
    fn the_first_failure_ends_the_commands_and_finally_still_runs() {
        check(
            &["0 a", "2 b", "0 c"],
            &["0 d", "0 e"],
            "0 a, 2 b, 0 d, 0 e",
            Outcome::Failed,
            "Error while executing command: 2 b. Reason: exit status 2",
        );
    }

    #[test]
    fn a_failure_in_finally_fails_the_phase_and_ends_it() {
        check(
            &["0 a"],
            &["1 b", "0 c"],
            "0 a, 1 b",
            Outcome::Failed,
            "Error while executing command: 1 b. Reason: exit status 1",
        );
    }

    #[test]
    fn of_two_failures_the_first_is_reported() {
        check(
            &["137 a"],
            &["1 b"],
            "137 a, 1 b",
            Outcome::Failed,
            "Error while executing command: 137 a. Reason: exit status 137",
        );
    }

    #[test]
    fn a_lost_lease_reports_nothing_and_a_limit_says_so() {
        assert_eq!(Interrupt::Lost.verdict(), None);
        let verdict = Interrupt::TimedOut.verdict().unwrap();
        assert_eq!(verdict.outcome, Outcome::TimedOut);
        assert_eq!(verdict.context.status_code, "BUILD_TIMED_OUT");
        let stopped = Interrupt::Stopped.verdict().unwrap();
        assert_eq!(stopped.outcome, Outcome::Stopped);
    }
}
