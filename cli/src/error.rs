//! What went wrong, for people: a message, its causes, a hint, and the exit code that says whose doing it
//! was.

use std::{error::Error, fmt, io, net::SocketAddr, process::ExitCode};

use anyhow::anyhow;
use cache::{materialize::MaterializeError, put::PutError, upload::UploadError};
use coordinator::{DirectoryError, OpenError};
use protocol::message::{Refusal, RefusalCode};
use transport::{ConnectError, StreamError};

/// The farm has no cache now. One that has just started may have it soon.
#[derive(Debug, thiserror::Error)]
#[error("the farm at {address} has no cache")]
pub(crate) struct NoCache {
    /// The coordinator.
    pub(crate) address: SocketAddr,
}

/// The cache has nothing of that name, or not all of it.
#[derive(Debug, thiserror::Error)]
#[error("the cache has no `{what}` that is whole")]
pub(crate) struct NotInCache {
    /// What somebody means by a key, or by a digest or a beginning of one.
    pub(crate) what: String,
}

/// Exit codes; `docs/operating.md` lists them.
pub(crate) mod exit {
    /// Done.
    pub(crate) const DONE: u8 = 0;
    /// The build failed.
    pub(crate) const FAILED: u8 = 1;
    /// What was typed or handed in is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// The farm could not.
    pub(crate) const FARM: u8 = 3;
    /// The build was stopped, or somebody left a command before its end.
    pub(crate) const STOPPED: u8 = 4;
    /// The build or its wait was over its time limit.
    pub(crate) const TIMED_OUT: u8 = 5;
}

/// Whether a refusal of this kind is the doing of who asked; else it is the farm's.
pub(crate) const fn is_askers_doing(code: RefusalCode) -> bool {
    match code {
        RefusalCode::InvalidArgument
        | RefusalCode::NotFound
        | RefusalCode::FailedPrecondition
        | RefusalCode::PermissionDenied => true,
        RefusalCode::ResourceExhausted | RefusalCode::Unavailable | RefusalCode::Internal => false,
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    error: anyhow::Error,
    hint: Option<String>,
    is_quiet: bool,
}

impl CommandError {
    /// What was typed or handed in is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit::USAGE,
            error: error.into(),
            hint: None,
            is_quiet: false,
        }
    }

    /// The farm could not.
    pub(crate) fn farm(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit::FARM,
            error: error.into(),
            hint: None,
            is_quiet: false,
        }
    }

    /// Somebody did not want to wait for the end.
    pub(crate) fn left() -> Self {
        Self {
            code: exit::STOPPED,
            error: anyhow!("left at once; what was begun may still be ending"),
            hint: None,
            is_quiet: false,
        }
    }

    /// Standard output does not take what was asked for.
    pub(crate) fn output(error: io::Error) -> Self {
        let is_quiet = error.kind() == io::ErrorKind::BrokenPipe;
        let error = anyhow::Error::new(error).context("failed to write to standard output");
        Self {
            code: if is_quiet { exit::DONE } else { exit::FARM },
            is_quiet,
            error,
            hint: None,
        }
    }

    /// Whether there is nothing to say: the reader of a pipe has seen enough.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether a coordinator runs on the data already.
    pub(crate) fn is_in_use(&self) -> bool {
        self.error.chain().any(|cause| {
            let cause = cause.downcast_ref::<OpenError>();
            matches!(
                cause,
                Some(OpenError::Directory(DirectoryError::Locked { .. }))
            )
        })
    }

    /// Whether the farm could not, so that trying again may help.
    pub(crate) const fn is_farm(&self) -> bool {
        self.code == exit::FARM
    }

    /// Whether the farm has no cache now.
    pub(crate) fn is_without_cache(&self) -> bool {
        self.error.chain().any(|cause| cause.is::<NoCache>())
    }

    /// Whether the cache has not what was asked for, or not all of it.
    pub(crate) fn is_not_in_cache(&self) -> bool {
        self.error.chain().any(|cause| cause.is::<NotInCache>())
    }

    /// Whether a connection to the farm was lost, or not to be had, so that the same may go well over another.
    pub(crate) fn is_lost_connection(&self) -> bool {
        self.error.chain().any(|cause| {
            let is_lost = matches!(
                cause.downcast_ref(),
                Some(
                    StreamError::Lost { .. }
                        | StreamError::Reset
                        | StreamError::Stopped
                        | StreamError::Truncated { .. }
                )
            );
            let unanswered = matches!(cause.downcast_ref(), Some(ConnectError::NoAnswer { .. }));
            let refusal = cause.downcast_ref::<Refusal>();
            let will_be = refusal.is_some_and(|no| no.code == RefusalCode::Unavailable);
            is_lost || unanswered || will_be
        })
    }

    /// The farm said no: whose doing it is follows from the kind of refusal.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        if is_askers_doing(refusal.code) {
            Self::usage(refusal)
        } else {
            Self::farm(refusal)
        }
    }

    /// The cache did not do it. If it has refused, whose doing that is follows from the kind of refusal.
    pub(crate) fn of_cache(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let is_askers = error.chain().any(|cause| {
            let refusal = cause.downcast_ref::<Refusal>();
            // What has to be there first was there a moment ago: who asks again has it brought again.
            refusal.is_some_and(|no| {
                is_askers_doing(no.code) && no.code != RefusalCode::FailedPrecondition
            })
        });
        if is_askers {
            Self::usage(error)
        } else {
            Self::farm(error)
        }
    }

    /// A directory could not be put into the cache. That it cannot be read, or changes meanwhile, is the asker's
    /// doing.
    pub(crate) fn of_put(error: PutError) -> Self {
        match error {
            PutError::Capture(_)
            | PutError::Upload(
                UploadError::Read { .. }
                | UploadError::Changed { .. }
                | UploadError::TooLarge { .. },
            ) => Self::usage(error),
            PutError::Upload(UploadError::Cache(_)) => Self::of_cache(error),
        }
    }

    /// A directory could not be got out of the cache. That it cannot be made where it is to be is the asker's doing.
    pub(crate) fn of_get(error: MaterializeError) -> Self {
        let is_askers = match &error {
            MaterializeError::Exists { .. } => true,
            MaterializeError::Aside { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotADirectory
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            _ => false,
        };
        if is_askers {
            Self::usage(error)
        } else {
            Self::of_cache(error)
        }
    }

    /// The same, with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong and why, in one line and without advice.
    pub(crate) fn in_one_line(&self) -> String {
        format!("{:#}", self.error)
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
    use std::path::PathBuf;

    use cache::{capture::CaptureError, client::CacheError};
    use protocol::path::TreePath;

    use super::*;

    fn refused(code: RefusalCode) -> CacheError {
        let source = Refusal::new(code, "no");
        CacheError::Refused {
            what: "do it",
            source,
        }
    }

    #[test]
    fn what_the_cache_refuses_is_the_askers_doing_unless_it_may_pass() {
        for (code, expected) in [
            (RefusalCode::InvalidArgument, exit::USAGE),
            (RefusalCode::NotFound, exit::USAGE),
            (RefusalCode::PermissionDenied, exit::USAGE),
            (RefusalCode::FailedPrecondition, exit::FARM),
            (RefusalCode::ResourceExhausted, exit::FARM),
            (RefusalCode::Unavailable, exit::FARM),
            (RefusalCode::Internal, exit::FARM),
        ] {
            assert_eq!(CommandError::of_cache(refused(code)).code, expected);
            // However deep it is.
            let put = PutError::from(UploadError::from(refused(code)));
            assert_eq!(CommandError::of_put(put).code, expected, "{code:?}");
            let get = MaterializeError::from(refused(code));
            assert_eq!(CommandError::of_get(get).code, expected, "{code:?}");
        }
        let what = "do it";
        let source = StreamError::Reset;
        let broken = CommandError::of_cache(CacheError::Stream { what, source });
        assert!(broken.is_farm() && broken.is_lost_connection());
    }

    #[test]
    fn a_directory_that_cannot_be_read_or_made_is_the_askers_doing() {
        let path = || TreePath::new("file").unwrap();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let source = denied();
        let unreadable = CaptureError::Read {
            path: path(),
            source,
        };
        for error in [
            PutError::from(unreadable),
            PutError::from(CaptureError::Changed { path: path() }),
            PutError::from(UploadError::Changed { path: path() }),
        ] {
            assert_eq!(CommandError::of_put(error).code, exit::USAGE);
        }
        let directory = PathBuf::from("/there");
        let target = directory.clone();
        let aside = |source| MaterializeError::Aside {
            directory: directory.clone(),
            source,
        };
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        for (error, expected) in [
            (MaterializeError::Exists { target }, exit::USAGE),
            (aside(denied()), exit::USAGE),
            (aside(full()), exit::FARM),
        ] {
            assert_eq!(CommandError::of_get(error).code, expected);
        }
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure_to_speak_of() {
        let broken = |kind| CommandError::output(io::Error::from(kind));
        assert!(broken(io::ErrorKind::BrokenPipe).is_quiet());
        assert!(!broken(io::ErrorKind::StorageFull).is_quiet());
    }

    #[test]
    fn only_what_another_connection_may_mend_is_a_lost_one() {
        let refused = |code| CommandError::refused(Refusal::new(code, "no")).is_lost_connection();
        assert!(refused(RefusalCode::Unavailable));
        assert!(!refused(RefusalCode::ResourceExhausted) && !refused(RefusalCode::NotFound));
        let deep = anyhow::Error::new(StreamError::Reset).context("uploading failed");
        assert!(CommandError::farm(deep).is_lost_connection());
        assert!(!CommandError::farm(anyhow!("the farm has no cache")).is_lost_connection());
    }

    #[test]
    fn causes_and_hints_have_a_line_each() {
        let error = anyhow!("no such file").context("failed to read `buildspec.yml`");
        let error = CommandError::usage(error).hint("name it with `--buildspec`");
        assert_eq!(
            error.to_string(),
            "error: failed to read `buildspec.yml`\n  caused by: no such file\n\
             hint: name it with `--buildspec`"
        );
        let line = "failed to read `buildspec.yml`: no such file";
        assert_eq!(error.in_one_line(), line);
    }
}
