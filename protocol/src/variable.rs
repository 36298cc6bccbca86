//! Environment variables: which of them are content, and which depend on place and occasion.
//!
//! This is the one table that says what counts as the same when two phases are compared, and so what is
//! carried from phase to phase and what the farm sets anew for each.

use serde::{Deserialize, Serialize};

use crate::message::terminal::DEBUG_DIRECTORY;

/// What a variable's value depends on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum VariableClass {
    /// What the buildspec, the submission or a command said: part of what a phase is.
    Content,
    /// Where the phase runs. Made equal on every worker, so it need not be compared.
    Place,
    /// Which run this is: ids, numbers, times. Set anew for each phase, and never compared.
    Occasion,
    /// What the shell keeps for itself; belongs to nobody.
    Shell,
}

/// Which part of the tests a unit of a `build-fanout` runs, from 0: for `codebuild-tests-run`.
pub const SHARD_INDEX: &str = "GRANGE_SHARD_INDEX";
/// How many units share the tests.
pub const SHARD_COUNT: &str = "GRANGE_SHARD_COUNT";

/// Variables that the farm or a shell sets, with their classes. Others are content.
const TABLE: &[(&str, VariableClass)] = &[
    ("CODEBUILD_BATCH_BUILD_IDENTIFIER", VariableClass::Occasion),
    ("CODEBUILD_BUILD_ARN", VariableClass::Occasion),
    ("CODEBUILD_BUILD_ID", VariableClass::Occasion),
    ("CODEBUILD_BUILD_NUMBER", VariableClass::Occasion),
    ("CODEBUILD_BUILD_SUCCEEDING", VariableClass::Occasion),
    ("CODEBUILD_BUILD_URL", VariableClass::Occasion),
    ("CODEBUILD_INITIATOR", VariableClass::Occasion),
    ("CODEBUILD_LAST_EXIT", VariableClass::Occasion),
    ("CODEBUILD_LOG_PATH", VariableClass::Occasion),
    ("CODEBUILD_RESOLVED_SOURCE_VERSION", VariableClass::Occasion),
    ("CODEBUILD_SOURCE_REPO_URL", VariableClass::Occasion),
    ("CODEBUILD_SOURCE_VERSION", VariableClass::Occasion),
    ("CODEBUILD_START_TIME", VariableClass::Occasion),
    (DEBUG_DIRECTORY, VariableClass::Occasion),
    (SHARD_COUNT, VariableClass::Occasion),
    (SHARD_INDEX, VariableClass::Occasion),
    ("CI", VariableClass::Place),
    ("CODEBUILD_CI", VariableClass::Place),
    ("CODEBUILD_SRC_DIR", VariableClass::Place),
    ("OLDPWD", VariableClass::Shell),
    ("PPID", VariableClass::Shell),
    ("PWD", VariableClass::Shell),
    ("SHLVL", VariableClass::Shell),
    ("_", VariableClass::Shell),
];

/// How variables begin of which there is one for each secondary source, with their classes.
const OF_SOURCES: &[(&str, VariableClass)] = &[
    (
        "CODEBUILD_RESOLVED_SOURCE_VERSION_",
        VariableClass::Occasion,
    ),
    ("CODEBUILD_SOURCE_REPO_URL_", VariableClass::Occasion),
    ("CODEBUILD_SOURCE_VERSION_", VariableClass::Occasion),
    ("CODEBUILD_SRC_DIR_", VariableClass::Place),
];

/// The class of the variable `name`.
pub fn class_of(name: &str) -> VariableClass {
    let of_sources = OF_SOURCES.iter();
    let known = TABLE.iter().find(|(known, _)| *known == name);
    let known = known.or_else(|| {
        of_sources
            .clone()
            .find(|(start, _)| name.starts_with(start))
    });
    known.map_or(VariableClass::Content, |&(_, class)| class)
}

/// Whether a snapshot carries the variable `name` to the next phase. What commands made of `CI` and its
/// like is carried too; only ids, times and the shell's own are not.
pub fn is_carried(name: &str) -> bool {
    matches!(
        class_of(name),
        VariableClass::Content | VariableClass::Place
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_sets_is_carried_and_what_the_farm_sets_anew_is_not() {
        assert!(is_carried("MY_VERSION"));
        assert!(is_carried("PATH"));
        assert!(!is_carried("CODEBUILD_BUILD_ID"));
        assert!(!is_carried("PWD"));
        assert!(is_carried("CODEBUILD_SRC_DIR_lib"));
        assert!(!is_carried("CODEBUILD_SOURCE_VERSION_lib"));
    }
}
