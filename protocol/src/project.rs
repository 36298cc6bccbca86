//! Projects: what the builds of one repository have in common, as their team has said it.

mod check;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::check::{
    ARTIFACT_NAME_BYTES_MAX, BUILD_MINUTES, DESCRIPTION_CHARS_MAX, PROJECT_NAME_BYTES_MIN,
    PROJECT_VARIABLE_BYTES_MAX, PROJECTS_MAX, ProjectError, QUEUE_MINUTES, SECONDARY_SOURCES_MAX,
    SOURCE_IDENTIFIER_BYTES_MAX, check_identifier,
};
use crate::{
    archive::ArchiveSource,
    environment::BuildEnvironment,
    git::{GitCredential, GitSource},
    name::ProjectName,
};

/// A project. Its JSON is in journals, and people write it into files: every field but the name has a
/// default.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its name, unique in its team.
    pub name: ProjectName,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Where the source of its builds comes from.
    #[serde(default)]
    pub source: ProjectSource,
    /// What else its builds find beside their source, by identifier.
    #[serde(default)]
    pub secondary_sources: BTreeMap<String, GitSource>,
    /// The buildspec: a path in the source, or all of it; `None` or empty: `buildspec.yml`.
    #[serde(default)]
    pub buildspec: Option<String>,
    /// Variables that go over those of the buildspec.
    #[serde(default)]
    pub env: ProjectEnvironment,
    /// What it asks of the machines of its builds.
    #[serde(default)]
    pub environment: BuildEnvironment,
    /// What its builds publish.
    #[serde(default)]
    pub artifacts: ProjectArtifacts,
    /// What its builds do with dependency caches.
    #[serde(default)]
    pub cache: ProjectCache,
    /// How many minutes a build may take; `None`: as long as the farm lets any.
    #[serde(default)]
    pub build_minutes: Option<u32>,
    /// How many minutes a build may wait; `None`: as long as the farm lets any.
    #[serde(default)]
    pub queue_minutes: Option<u32>,
    /// How many builds may be there that have not ended; `None`: any number.
    #[serde(default)]
    pub concurrent_builds_max: Option<u32>,
    /// What its batches may be, and what becomes of them.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Whether everybody of the farm may see how its last build ended.
    #[serde(default)]
    pub badge: bool,
}

/// Where the source of a project's builds comes from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectSource {
    /// Whoever starts a build uploads it.
    #[default]
    Upload,
    /// A worker fetches it with git.
    Git(GitSource),
    /// A worker fetches it as an archive.
    Archive(ArchiveSource),
}

/// The variables of a project; no name is there twice.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectEnvironment {
    /// Variables with their values: CodeBuild's type `PLAINTEXT`.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Variables with the names of parameters that have their values: `PARAMETER_STORE`.
    #[serde(default)]
    pub parameter_store: BTreeMap<String, String>,
    /// Variables with references to secrets that have their values: `SECRETS_MANAGER`.
    #[serde(default)]
    pub secrets_manager: BTreeMap<String, String>,
}

/// What the builds of a project publish.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectArtifacts {
    /// What artifacts are called; `None`: as the project.
    pub name: Option<String>,
    /// Whether the name in a buildspec goes over that.
    pub override_name: bool,
    /// The identifiers that secondary artifacts may have; empty: any.
    pub secondary: BTreeSet<String>,
}

impl Default for ProjectArtifacts {
    /// Buildspecs say what artifacts are called, and which there are.
    fn default() -> Self {
        Self {
            name: None,
            override_name: true,
            secondary: BTreeSet::new(),
        }
    }
}

/// What the builds of a project do with dependency caches.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectCache {
    /// Whether they have any.
    #[serde(default, rename = "type")]
    pub kind: CacheKind,
    /// Under which name projects of the team share caches that have a key; `None`: this one shares none.
    #[serde(default)]
    pub namespace: Option<ProjectName>,
}

/// Whether builds have dependency caches.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum CacheKind {
    /// In the farm's cache, whatever CodeBuild's project calls it.
    #[default]
    #[serde(rename = "FARM", alias = "S3", alias = "LOCAL")]
    Farm,
    /// None, also if the buildspec asks for one.
    #[serde(rename = "NO_CACHE")]
    None,
}

/// What the batches of a project may be, and what becomes of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// How many tasks one may have; `None`: as many as any.
    #[serde(default)]
    pub builds_max: Option<u32>,
    /// The compute types that a task may ask for; empty: all.
    #[serde(default)]
    pub compute_types: BTreeSet<String>,
    /// How many minutes one may take with all of its builds; `None`: as many as the farm's owner allows.
    #[serde(default)]
    pub minutes: Option<u32>,
    /// Whether what its builds publish becomes one artifact.
    #[serde(default)]
    pub combine_artifacts: bool,
    /// How the reports of its builds are told.
    #[serde(default)]
    pub reports: BatchReports,
}

impl BatchConfig {
    /// How long a batch may take with all of its builds; `None`: as long as the farm's owner allows.
    pub fn limit(&self) -> Option<Duration> {
        let minutes = self.minutes.map(u64::from);
        minutes.map(|minutes| Duration::from_secs(60 * minutes))
    }
}

/// How the reports of a batch's builds are told.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum BatchReports {
    /// Those of one group are one report.
    #[default]
    #[serde(rename = "merged", alias = "REPORT_AGGREGATED_BATCH")]
    Merged,
    /// Each build has its own.
    #[serde(rename = "individual", alias = "REPORT_INDIVIDUAL_BUILDS")]
    Individual,
}

impl BatchReports {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Individual => "individual",
        }
    }
}

/// What a build is planned by, once its source is there.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Recipe {
    /// All of the buildspec; `None`: it is in the source.
    #[serde(default)]
    pub buildspec: Option<String>,
    /// Where it is in the source, or what it is called in messages.
    #[serde(default)]
    pub buildspec_path: String,
    /// Variables of whoever started the build: over all others.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Variables of the project: over those of the buildspec.
    #[serde(default)]
    pub env: ProjectEnvironment,
    /// Whether to run the `batch` section.
    #[serde(default)]
    pub batch: bool,
    /// Whether to restore and save no dependency caches.
    #[serde(default)]
    pub no_cache: bool,
    /// What a batch may be.
    #[serde(default)]
    pub restrictions: BatchConfig,
    /// The credentials of the project's repositories, which the build's own git may use if the buildspec says so.
    #[serde(default)]
    pub git_credentials: Vec<GitCredential>,
    /// What the project asks of the machine.
    #[serde(default)]
    pub environment: BuildEnvironment,
    /// What the project says of artifacts.
    #[serde(default)]
    pub artifacts: ProjectArtifacts,
}

impl Project {
    /// A project with nothing but a name.
    pub fn new(name: ProjectName) -> Self {
        Self {
            name,
            description: String::new(),
            source: ProjectSource::default(),
            secondary_sources: BTreeMap::new(),
            buildspec: None,
            env: ProjectEnvironment::default(),
            environment: BuildEnvironment::default(),
            artifacts: ProjectArtifacts::default(),
            cache: ProjectCache::default(),
            build_minutes: None,
            queue_minutes: None,
            concurrent_builds_max: None,
            batch: BatchConfig::default(),
            badge: false,
        }
    }

    /// The buildspec as a path in the source, and as its whole text; neither if the project says nothing.
    pub fn buildspec(&self) -> (Option<&str>, Option<&str>) {
        match self.buildspec.as_deref().filter(|text| !text.is_empty()) {
            None => (None, None),
            Some(text) if is_inline(text) => (None, Some(text)),
            Some(path) => (Some(path), None),
        }
    }
}

/// Where the log says that a buildspec is which is no file of the source, as `CodeBuild` has it.
pub const INLINE_BUILDSPEC: &str = "/codebuild/readonly/buildspec.yml";

/// Whether a project's `buildspec` is the file itself, and not where it is.
pub fn is_inline(buildspec: &str) -> bool {
    buildspec.contains('\n') || buildspec.trim_start().starts_with('{')
}

impl ProjectEnvironment {
    /// The variables by CodeBuild's name of their type.
    pub const fn by_type(&self) -> [(&'static str, &BTreeMap<String, String>); 3] {
        [
            ("PLAINTEXT", &self.variables),
            ("PARAMETER_STORE", &self.parameter_store),
            ("SECRETS_MANAGER", &self.secrets_manager),
        ]
    }

    /// Takes a variable out, of whatever type it is; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let Self {
            variables,
            parameter_store,
            secrets_manager,
        } = self;
        let of = [variables, parameter_store, secrets_manager];
        of.map(|of| of.remove(name).is_some()).contains(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buildspec_is_a_path_unless_it_is_the_file_itself() {
        let of = |text: &str| {
            let mut project = Project::new("shop".parse().unwrap());
            project.buildspec = Some(text.to_owned());
            let (path, inline) = project.buildspec();
            (path.map(str::to_owned), inline.map(str::to_owned))
        };
        assert_eq!(of(""), (None, None));
        assert_eq!(of("ci/b.yml"), (Some("ci/b.yml".to_owned()), None));
        let text = "version: 0.2\nphases: {}\n";
        assert_eq!(of(text), (None, Some(text.to_owned())));
        assert_eq!(
            of("{version: 0.2}"),
            (None, Some("{version: 0.2}".to_owned()))
        );
    }
}
