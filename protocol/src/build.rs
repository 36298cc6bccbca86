//! Builds: one run of a buildspec on a source tree, its phases and what became of them.
//!
//! Phases, statuses and their order are CodeBuild's (API reference, `Build`, `BuildPhase`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::name::ProjectName;

/// Names one build, everywhere and forever: a random (version 4) UUID.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId(pub u128);

/// Why a text names no build.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is no build id; one looks like `1b4e28ba-2fa1-41d2-883f-0016d3cca427`")]
pub struct ParseBuildIdError {
    /// The text.
    pub text: String,
}

impl BuildId {
    /// An id from random bytes.
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        let version = bits & !(0xf << 76) | 0x4 << 76;
        Self(version & !(0x3 << 62) | 0x2 << 62)
    }

    /// The id in CodeBuild's form, `<project>:<uuid>`, which `CODEBUILD_BUILD_ID` holds.
    pub fn qualified(self, project: &ProjectName) -> String {
        format!("{project}:{self}")
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (a, b, c, d, e) = (
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        );
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl FromStr for BuildId {
    type Err = ParseBuildIdError;

    fn from_str(text: &str) -> Result<Self, ParseBuildIdError> {
        let error = || ParseBuildIdError {
            text: text.to_owned(),
        };
        let id = u128::from_str_radix(&text.replace('-', ""), 16).map_err(|_| error())?;
        if Self(id).to_string() == text {
            Ok(Self(id))
        } else {
            Err(error())
        }
    }
}

impl TryFrom<String> for BuildId {
    type Error = ParseBuildIdError;

    fn try_from(text: String) -> Result<Self, ParseBuildIdError> {
        text.parse()
    }
}

impl From<BuildId> for String {
    fn from(id: BuildId) -> Self {
        id.to_string()
    }
}

/// The phases of a build, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// The farm has taken the build.
    Submitted,
    /// It waits for a worker.
    Queued,
    /// A worker makes ready for it.
    Provisioning,
    /// The source tree is put in place and dependency caches are restored.
    DownloadSource,
    /// The `install` section.
    Install,
    /// The `pre_build` section.
    PreBuild,
    /// The `build` section.
    Build,
    /// The `post_build` section; dependency caches are saved at its end.
    PostBuild,
    /// Artifacts are uploaded.
    UploadArtifacts,
    /// The farm puts things away.
    Finalizing,
    /// The build has ended.
    Completed,
}

impl Phase {
    /// The name as CodeBuild prints it, like `PRE_BUILD`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Queued => "QUEUED",
            Self::Provisioning => "PROVISIONING",
            Self::DownloadSource => "DOWNLOAD_SOURCE",
            Self::Install => "INSTALL",
            Self::PreBuild => "PRE_BUILD",
            Self::Build => "BUILD",
            Self::PostBuild => "POST_BUILD",
            Self::UploadArtifacts => "UPLOAD_ARTIFACTS",
            Self::Finalizing => "FINALIZING",
            Self::Completed => "COMPLETED",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a phase may run again after its first command has started and its worker was lost.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rerun {
    /// It may: what it does twice does no harm.
    Always,
    /// It may not, because it may have published something: the build ends as `FAULT`.
    Never,
}

impl Rerun {
    /// What holds for a phase of which nothing else was said.
    pub const fn of(phase: Phase) -> Self {
        match phase {
            Phase::PostBuild => Self::Never,
            _ => Self::Always,
        }
    }
}

/// What came of an attempt, and so of a job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// Everything went well.
    Succeeded,
    /// The user's commands failed. Final: trying again would fail again.
    Failed,
    /// The farm failed. Tried again elsewhere, up to a limit.
    Fault,
    /// A time limit was reached.
    TimedOut,
    /// Somebody stopped the build.
    Stopped,
    /// It was never started, because something it needs ended otherwise than accepted.
    Skipped,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 6] = [
        Self::Succeeded,
        Self::Failed,
        Self::Fault,
        Self::TimedOut,
        Self::Stopped,
        Self::Skipped,
    ];

    /// The name as CodeBuild prints it, like `TIMED_OUT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Fault => "FAULT",
            Self::TimedOut => "TIMED_OUT",
            Self::Stopped => "STOPPED",
            Self::Skipped => "SKIPPED",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a build, a unit or a phase stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Not started: it waits for what it needs, or for a worker.
    Queued,
    /// Started.
    InProgress,
    /// Ended.
    Ended(Outcome),
}

impl Status {
    /// The name as CodeBuild prints it, like `IN_PROGRESS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::InProgress => "IN_PROGRESS",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// CodeBuild's `buildStatus` of a build that stands so: one of six, since a build that waits is in progress
    /// there. One that was never started, which no build as a whole is, has failed.
    pub const fn of_build(self) -> &'static str {
        match self {
            Self::Queued | Self::InProgress => Self::InProgress.as_str(),
            Self::Ended(Outcome::Skipped) => Outcome::Failed.as_str(),
            Self::Ended(outcome) => outcome.as_str(),
        }
    }
}

/// Why a phase ended as it did: CodeBuild's `phases[].contexts[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PhaseContext {
    /// Like `COMMAND_EXECUTION_ERROR`; empty after success.
    pub status_code: String,
    /// Like `Error while executing command: make. Reason: exit status 2`; empty after success.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_a_version_4_uuid_and_survives_its_text() {
        let id = BuildId::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("ffffffff".parse::<BuildId>().is_err());
    }
}
