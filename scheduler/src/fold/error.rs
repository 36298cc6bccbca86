//! Why a fact does not fit.

use protocol::{build::BuildId, job::JobId, lease::LeaseId};

/// Why a fact does not fit what is known. The journal was changed, or is not of this program; the
/// caller stops and names the place.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FoldError {
    /// It is about a build that is not known.
    #[error("fact is about build {build}, which is not known")]
    UnknownBuild {
        /// The build.
        build: BuildId,
    },
    /// It submits a build that is there already.
    #[error("fact submits build {build}, which is known already")]
    KnownBuild {
        /// The build.
        build: BuildId,
    },
    /// It submits a build whose graph leads nowhere.
    #[error("fact submits build {build}, whose graph is not sound")]
    Graph {
        /// The build.
        build: BuildId,
    },
    /// It is about a job or unit that its build does not have.
    #[error("fact is about job or unit {index} of build {build}, which has none of that index")]
    UnknownIndex {
        /// The build.
        build: BuildId,
        /// The index.
        index: u32,
    },
    /// It is about a job that does not stand so that this could happen to it.
    #[error("fact does not fit how job {job} stands")]
    Standing {
        /// The job.
        job: JobId,
    },
    /// It is about a lease that is not out.
    #[error("fact is about {lease}, which is not out")]
    UnknownLease {
        /// The lease.
        lease: LeaseId,
    },
}
