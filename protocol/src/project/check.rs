//! Which projects can be kept and built: the limits of the reference. Pure.

use std::collections::BTreeMap;

use super::{Project, ProjectArtifacts, ProjectEnvironment, ProjectSource};
use crate::{
    archive::ArchiveSourceError,
    environment::{BuildEnvironment, VALUE_BYTES_MAX},
    git::GitSourceError,
    graph::TASKS_MAX,
    job::SECONDARY_ARTIFACTS_MAX,
    message::client::{BUILDSPEC_BYTES_MAX, SUBMITTED_VARIABLES_MAX},
    name::ProjectName,
};

/// How short the name of a project may be, in bytes: CodeBuild's limit.
pub const PROJECT_NAME_BYTES_MIN: usize = 2;
/// How long the description of a project may be, in characters: CodeBuild's limit.
pub const DESCRIPTION_CHARS_MAX: usize = 255;
/// How many secondary sources a project may have: CodeBuild's limit.
pub const SECONDARY_SOURCES_MAX: usize = 12;
/// How long the identifier of a secondary source may be, in bytes: CodeBuild's limit.
pub const SOURCE_IDENTIFIER_BYTES_MAX: usize = 127;
/// How long the name of a project's artifacts may be, in bytes: what keys of object stores have.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 1024;
/// How many minutes a build may take at least and at most: CodeBuild's limits.
pub const BUILD_MINUTES: (u32, u32) = (5, 2160);
/// How many minutes a build may wait at least and at most: CodeBuild's limits.
pub const QUEUE_MINUTES: (u32, u32) = (5, 480);
/// How many projects a team may have: CodeBuild's limit of an account.
pub const PROJECTS_MAX: usize = 5_000;
/// How many bytes the variables of a project may have together: they are in every job of every build.
pub const PROJECT_VARIABLE_BYTES_MAX: usize = 128 * 1024;

/// What is wrong with a project. Mend it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProjectError {
    /// The name is too short, or holds a dot.
    #[error(
        "`{name}` cannot name a project: at least {PROJECT_NAME_BYTES_MIN} letters, digits, `-` and `_`"
    )]
    Name {
        /// The name.
        name: ProjectName,
    },
    /// The description is too long.
    #[error("description has {chars} characters, at most {DESCRIPTION_CHARS_MAX} are allowed")]
    Description {
        /// How many it has.
        chars: usize,
    },
    /// A repository cannot be fetched as it is named.
    #[error(transparent)]
    Git(#[from] GitSourceError),
    /// An archive cannot be fetched as it is named.
    #[error(transparent)]
    Archive(#[from] ArchiveSourceError),
    /// There are too many secondary sources.
    #[error("{count} secondary sources, at most {SECONDARY_SOURCES_MAX} are allowed")]
    SecondarySources {
        /// How many there are.
        count: usize,
    },
    /// A secondary source is called what no variable can be called after.
    #[error("`{identifier}` cannot identify a source: letters, digits and `_`")]
    Identifier {
        /// What it is called.
        identifier: String,
    },
    /// What artifacts are to be called cannot be a name: other tools would take it for something else.
    #[error(
        "artifacts cannot be called `{name}`: a name has at most {ARTIFACT_NAME_BYTES_MAX} letters, digits, `_`, \
         `-`, `.` and `/`"
    )]
    ArtifactName {
        /// The name.
        name: String,
    },
    /// There are too many secondary artifacts.
    #[error("{count} secondary artifacts, at most {SECONDARY_ARTIFACTS_MAX} are allowed")]
    SecondaryArtifacts {
        /// How many there are.
        count: usize,
    },
    /// The buildspec is too long.
    #[error("buildspec has {bytes} bytes, at most {BUILDSPEC_BYTES_MAX} are allowed")]
    Buildspec {
        /// How many it has.
        bytes: usize,
    },
    /// A variable cannot be called so.
    #[error(
        "variable `{name}` cannot be set: a name has letters, digits and `_`, and does not begin with `CODEBUILD_`"
    )]
    Variable {
        /// What it is called.
        name: String,
    },
    /// A variable is there twice.
    #[error("variable `{name}` is there twice, as {first} and as {second}")]
    Twice {
        /// Which.
        name: String,
        /// Of which type first.
        first: &'static str,
        /// And of which then.
        second: &'static str,
    },
    /// What it asks of machines is empty, too long, or no word.
    #[error(
        "{key} `{value}` cannot be asked for: it has 1 to {VALUE_BYTES_MAX} characters, and neither commas nor spaces"
    )]
    Environment {
        /// What it asks for,
        key: String,
        /// and which.
        value: String,
    },
    /// It asks for a fleet and for a size of machine: take one of them out.
    #[error("a project asks for a fleet or for a compute type, and not for both")]
    FleetAndSize,
    /// There are too many variables, or they are too long.
    #[error(
        "{count} variables of {bytes} bytes, at most {SUBMITTED_VARIABLES_MAX} of \
         {PROJECT_VARIABLE_BYTES_MAX} bytes together are allowed"
    )]
    Variables {
        /// How many there are.
        count: usize,
        /// How long names and values are together.
        bytes: usize,
    },
    /// A number is out of its range.
    #[error("{what} is {found}, and has to be from {} to {}", range.0, range.1)]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        found: u32,
        /// The least and the greatest that it may be.
        range: (u32, u32),
    },
}

impl Project {
    /// Says whether it can be kept and built.
    ///
    /// # Errors
    ///
    /// The first mistake.
    pub fn check(&self) -> Result<(), ProjectError> {
        let name = self.name.as_str();
        if name.len() < PROJECT_NAME_BYTES_MIN || name.contains('.') {
            let name = self.name.clone();
            return Err(ProjectError::Name { name });
        }
        let chars = self.description.chars().count();
        if DESCRIPTION_CHARS_MAX < chars {
            return Err(ProjectError::Description { chars });
        }
        self.check_sources()?;
        let bytes = self.buildspec.as_ref().map_or(0, String::len);
        if BUILDSPEC_BYTES_MAX < bytes {
            return Err(ProjectError::Buildspec { bytes });
        }
        self.env.check()?;
        self.environment.check()?;
        self.artifacts.check()?;
        let tasks = u32::try_from(TASKS_MAX).unwrap_or(u32::MAX);
        range(
            "the limit of a build, in minutes,",
            self.build_minutes,
            BUILD_MINUTES,
        )?;
        range(
            "the limit of a batch, in minutes,",
            self.batch.minutes,
            BUILD_MINUTES,
        )?;
        range(
            "the limit of the queue, in minutes,",
            self.queue_minutes,
            QUEUE_MINUTES,
        )?;
        let any = (1, u32::MAX);
        range(
            "the limit of builds at once",
            self.concurrent_builds_max,
            any,
        )?;
        range(
            "the limit of tasks in a batch",
            self.batch.builds_max,
            (1, tasks),
        )
    }

    fn check_sources(&self) -> Result<(), ProjectError> {
        if let ProjectSource::Archive(archive) = &self.source {
            archive.check()?;
        }
        if let ProjectSource::Git(git) = &self.source {
            git.check()?;
        }
        let count = self.secondary_sources.len();
        if SECONDARY_SOURCES_MAX < count {
            return Err(ProjectError::SecondarySources { count });
        }
        for (identifier, git) in &self.secondary_sources {
            check_identifier(identifier)?;
            git.check()?;
        }
        Ok(())
    }
}

/// Says whether `identifier` can identify a secondary source.
///
/// # Errors
///
/// If it cannot.
pub fn check_identifier(identifier: &str) -> Result<(), ProjectError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let length = identifier.len();
    if length == 0 || SOURCE_IDENTIFIER_BYTES_MAX < length || !identifier.chars().all(is_good) {
        let identifier = identifier.to_owned();
        return Err(ProjectError::Identifier { identifier });
    }
    Ok(())
}

impl ProjectArtifacts {
    fn check(&self) -> Result<(), ProjectError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let is_name = |name: &String| {
            (1..=ARTIFACT_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_good)
        };
        if let Some(name) = self.name.iter().find(|name| !is_name(name)) {
            let name = name.clone();
            return Err(ProjectError::ArtifactName { name });
        }
        let count = self.secondary.len();
        if SECONDARY_ARTIFACTS_MAX < count {
            return Err(ProjectError::SecondaryArtifacts { count });
        }
        let identifiers = self.secondary.iter();
        identifiers
            .map(String::as_str)
            .try_for_each(check_identifier)
    }
}

impl BuildEnvironment {
    fn check(&self) -> Result<(), ProjectError> {
        if self.fleet.is_some() && self.compute_type.is_some() {
            return Err(ProjectError::FleetAndSize);
        }
        for (key, value) in self.asked() {
            let is_word =
                !value.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control());
            if value.is_empty() || VALUE_BYTES_MAX < value.len() || !is_word {
                return Err(ProjectError::Environment { key, value });
            }
        }
        Ok(())
    }
}

impl ProjectEnvironment {
    fn check(&self) -> Result<(), ProjectError> {
        let mut seen: BTreeMap<&str, &'static str> = BTreeMap::new();
        let mut bytes = 0_usize;
        for (kind, variables) in self.by_type() {
            for (name, value) in variables {
                if !is_variable(name) || value.contains('\0') {
                    let name = name.clone();
                    return Err(ProjectError::Variable { name });
                }
                bytes = bytes.saturating_add(name.len() + value.len());
                if let Some(first) = seen.insert(name, kind) {
                    return Err(ProjectError::Twice {
                        name: name.clone(),
                        first,
                        second: kind,
                    });
                }
            }
        }
        let count = seen.len();
        if SUBMITTED_VARIABLES_MAX < count || PROJECT_VARIABLE_BYTES_MAX < bytes {
            return Err(ProjectError::Variables { count, bytes });
        }
        Ok(())
    }
}

fn is_variable(name: &str) -> bool {
    let mut letters = name.chars();
    let first = letters.next().unwrap_or_default();
    (first.is_ascii_alphabetic() || first == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with("CODEBUILD_")
}

fn range(what: &'static str, found: Option<u32>, range: (u32, u32)) -> Result<(), ProjectError> {
    match found {
        Some(found) if !(range.0..=range.1).contains(&found) => {
            Err(ProjectError::Range { what, found, range })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::GitSource;

    fn project() -> Project {
        Project::new("shop".parse().unwrap())
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Project), expected: &str) {
        let mut project = project();
        change(&mut project);
        let found = project.check().map_err(|error| error.to_string());
        match expected {
            "" => assert_eq!(found, Ok(())),
            part => assert!(
                found.as_ref().is_err_and(|text| text.contains(part)),
                "{found:?}"
            ),
        }
    }

    #[test]
    fn a_project_keeps_to_the_limits_of_the_reference() {
        check(|_| {}, "");
        check(|of| of.name = "x".parse().unwrap(), "cannot name a project");
        check(
            |of| of.name = "a.b".parse().unwrap(),
            "cannot name a project",
        );
        check(|of| of.description = "x".repeat(256), "256 characters");
        check(|of| of.build_minutes = Some(5), "");
        check(|of| of.build_minutes = Some(2160), "");
        check(|of| of.build_minutes = Some(4), "from 5 to 2160");
        check(|of| of.queue_minutes = Some(481), "from 5 to 480");
        check(|of| of.concurrent_builds_max = Some(0), "from 1");
        check(|of| of.batch.builds_max = Some(1001), "from 1 to 1000");
    }

    #[test]
    fn variables_have_one_type_and_no_reserved_name() {
        let set = |of: &mut Project, name: &str| {
            let of = &mut of.env.variables;
            of.insert(name.to_owned(), "x".to_owned());
        };
        check(|of| set(of, "A_1"), "");
        for name in ["", "1A", "A-B", "CODEBUILD_X"] {
            check(|of| set(of, name), "cannot be set");
        }
        let twice = |of: &mut Project| {
            set(of, "A");
            of.env
                .secrets_manager
                .insert("A".to_owned(), "s".to_owned());
        };
        check(twice, "twice, as PLAINTEXT and as SECRETS_MANAGER");
    }

    #[test]
    fn what_is_asked_of_machines_is_words_and_a_size_or_a_fleet() {
        let ask = |of: &mut Project, image: &str| of.environment.image = Some(image.to_owned());
        check(|of| ask(of, "aws/codebuild/standard:7.0"), "");
        check(|of| ask(of, ""), "cannot be asked for");
        check(|of| ask(of, "a,b"), "neither commas");
        let both = |of: &mut Project| {
            of.environment.fleet = Some("f".to_owned());
            of.environment.compute_type = Some("SMALL".to_owned());
        };
        check(both, "not for both");
    }

    #[test]
    fn artifacts_are_called_what_no_shell_expands() {
        let call = |of: &mut Project, name: &str| of.artifacts.name = Some(name.to_owned());
        check(|of| call(of, "releases/shop-1.zip"), "");
        for name in ["", "$(date)", "a b"] {
            check(|of| call(of, name), "cannot be called");
        }
        let add = |of: &mut Project, identifier: &str| {
            of.artifacts.secondary.insert(identifier.to_owned());
        };
        check(|of| add(of, "docs"), "");
        check(|of| add(of, "do-cs"), "cannot identify");
        check(
            |of| (0..13).for_each(|at| add(of, &format!("a{at}"))),
            "13 secondary",
        );
    }

    #[test]
    fn secondary_sources_are_called_what_a_variable_can_end_with() {
        let add = |of: &mut Project, identifier: &str| {
            let git = GitSource::head_of("https://example.org/a".to_owned());
            of.secondary_sources.insert(identifier.to_owned(), git);
        };
        check(|of| add(of, "lib_2"), "");
        check(|of| add(of, "lib-2"), "cannot identify");
        check(
            |of| (0..13).for_each(|at| add(of, &format!("s{at}"))),
            "13 secondary",
        );
    }
}
