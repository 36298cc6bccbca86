//! What went wrong, for people: a message, its causes, a hint, and the exit code that says whose doing it
//! was.

use std::{error::Error, fmt, process::ExitCode};

use protocol::message::{Refusal, RefusalCode};

/// Exit codes; `docs/operating.md` lists them.
pub(crate) mod exit {
    /// The build failed.
    pub(crate) const FAILED: u8 = 1;
    /// What was typed or handed in is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// The farm could not.
    pub(crate) const FARM: u8 = 3;
    /// The build was stopped.
    pub(crate) const STOPPED: u8 = 4;
    /// The build or its wait was over its time limit.
    pub(crate) const TIMED_OUT: u8 = 5;
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    error: anyhow::Error,
    hint: Option<String>,
}

impl CommandError {
    /// What was typed or handed in is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit::USAGE,
            error: error.into(),
            hint: None,
        }
    }

    /// The farm could not.
    pub(crate) fn farm(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit::FARM,
            error: error.into(),
            hint: None,
        }
    }

    /// Anything with an exit code of its own.
    pub(crate) fn with_code(code: u8, error: anyhow::Error) -> Self {
        Self {
            code,
            error,
            hint: None,
        }
    }

    /// Whether the farm could not, so that trying again may help.
    pub(crate) const fn is_farm(&self) -> bool {
        self.code == exit::FARM
    }

    /// The farm said no: whose doing it is follows from the kind of refusal.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let code = match refusal.code {
            RefusalCode::InvalidArgument
            | RefusalCode::NotFound
            | RefusalCode::FailedPrecondition
            | RefusalCode::PermissionDenied => exit::USAGE,
            RefusalCode::ResourceExhausted | RefusalCode::Unavailable | RefusalCode::Internal => {
                exit::FARM
            }
        };
        Self {
            code,
            error: refusal.into(),
            hint: None,
        }
    }

    /// The same, with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl Error for CommandError {}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_and_hints_have_a_line_each() {
        let error = anyhow!("no such file").context("failed to read `buildspec.yml`");
        let error = CommandError::usage(error).hint("name it with `--buildspec`");
        assert_eq!(
            error.to_string(),
            "error: failed to read `buildspec.yml`\n  caused by: no such file\n\
             hint: name it with `--buildspec`"
        );
    }
}
