//! A unit: the chain of its six phases.

use std::collections::BTreeMap;

use protocol::{
    artifact::ArtifactsSpec,
    build::Phase,
    cache_spec::{CacheSpec, UnaskedCache},
    environment::Asked,
    graph::{Edge, JobGraph, JobNode, OutcomeSet, text_bytes_of},
    job::{PhaseCommands, Preface, ShellState, Task},
    report_group::ReportSpec,
    secret::SecretRef,
};

use super::Running;
use crate::spec::{BuildSpec, CacheAction, OnFailure, PhaseSpec, Published, ReportFormat, Version};

/// How many jobs a unit has.
pub(super) const JOBS_PER_UNIT: usize = 6;

/// A phase of a unit, its task, and in which outcomes the phase after it may follow.
struct PlannedPhase {
    phase: Phase,
    task: Task,
    leaves: OutcomeSet,
}

/// What a unit starts with.
pub(super) struct Variables {
    /// Those whose values are known.
    pub(super) variables: BTreeMap<String, String>,
    /// Those whose values are secrets.
    pub(super) secrets: Vec<SecretRef>,
    /// What it asks of its machine.
    pub(super) environment: Asked,
}

impl Variables {
    /// Those of a buildspec, and those that go over them; of one name, the one of the later map counts.
    pub(super) fn of(spec: &BuildSpec, over: &[&BTreeMap<String, String>]) -> Self {
        let maps = [&spec.variables].into_iter().chain(over.iter().copied());
        let all = maps.flatten();
        let is_hidden = |name: &String| over.iter().any(|map| map.contains_key(name));
        let secrets = spec.secrets.iter().filter(|(name, _)| !is_hidden(name));
        Self {
            variables: all
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            secrets: secrets.map(|(name, of)| of.to_ref(name)).collect(),
            environment: Asked::new(),
        }
    }
}

/// About what the texts of a unit take that runs this, in bytes, without what its request adds.
pub(super) fn unit_bytes(running: Running<'_>) -> usize {
    let planned = unit_tasks(running, Variables::of(running.spec, &[]));
    planned.iter().map(|phase| text_bytes_of(&phase.task)).sum()
}

/// The six phases of a unit, in order.
fn unit_tasks(running: Running<'_>, of: Variables) -> Vec<PlannedPhase> {
    let Running { spec, phases, .. } = running;
    let cached = Cached(running);
    let mut planned = Vec::with_capacity(JOBS_PER_UNIT);
    let mut preface = preface_of(running, &of.variables);
    preface.environment = of.environment;
    let credentials = running.git_credentials.iter().map(|of| of.secret.clone());
    let secrets = of.secrets.into_iter().chain(credentials).collect();
    planned.push(PlannedPhase {
        phase: Phase::DownloadSource,
        task: Task::DownloadSource {
            variables: of.variables,
            cache: cached.asked(CacheAction::Restore),
            unasked: cached.unasked(),
            shell: spec.shell,
            preface,
            secrets,
        },
        leaves: OutcomeSet::SUCCEEDED,
    });
    for (phase, section) in phases.in_order() {
        let save_cache = (phase == Phase::PostBuild)
            .then(|| cached.asked(CacheAction::Save))
            .flatten();
        let save_unasked = (phase == Phase::PostBuild)
            .then(|| cached.unasked())
            .flatten();
        planned.push(PlannedPhase {
            phase,
            task: Task::Commands(PhaseCommands {
                commands: section.commands.clone(),
                finally: section.finally.clone(),
                shell: spec.shell,
                state: match spec.version {
                    Version::V0_1 => ShellState::Fresh,
                    Version::V0_2 => ShellState::Carried,
                },
                save_cache,
                save_unasked,
                run_as: section.run_as.as_ref().or(spec.run_as.as_ref()).cloned(),
                retry: match &section.on_failure {
                    OnFailure::Retry(retry) => Some(retry.clone()),
                    _ => None,
                },
                exported: exported_of(spec),
                is_named: section.is_named,
            }),
            leaves: leaves(phase, section),
        });
    }
    planned.push(PlannedPhase {
        phase: Phase::UploadArtifacts,
        task: Task::UploadArtifacts {
            artifacts: spec.artifacts.as_ref().map(|of| artifact_of(&of.primary)),
            shell: spec.shell,
            reports: reports_of(spec),
            secondary: secondary_of(spec),
        },
        leaves: OutcomeSet::SUCCEEDED,
    });
    planned
}

/// What comes before the first phase.
fn preface_of(running: Running<'_>, variables: &BTreeMap<String, String>) -> Preface {
    let sections = running.phases.in_order().into_iter();
    let named = sections.filter(|(_, section)| section.is_named);
    let phases = named.map(|(phase, section)| (phase, index(section.commands.len())));
    let runtimes = running.phases.install.runtime_versions.iter();
    let runtimes =
        runtimes.map(|(runtime, version)| (runtime.clone(), expanded(version, variables)));
    Preface {
        buildspec: running.path.to_owned(),
        phases: phases.collect(),
        runtimes: runtimes.collect(),
        follows_fetch: false,
        selects_runtimes: false,
        git_credentials: running
            .git_credentials
            .iter()
            .map(|of| (of.secret.variable.clone(), of.url.clone()))
            .collect(),
        environment: Asked::new(),
        not_served: Asked::new(),
    }
}

/// The version of a runtime: what is written, or the value of the variable that it names.
fn expanded(version: &str, variables: &BTreeMap<String, String>) -> String {
    let version = version.trim();
    let name = version.strip_prefix('$').map(|name| {
        let braced = name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'));
        braced.unwrap_or(name)
    });
    let value = name.and_then(|name| variables.get(name));
    value.map_or(version, |value| value.trim()).to_owned()
}

/// What to publish for `published`.
fn artifact_of(published: &Published) -> ArtifactsSpec {
    ArtifactsSpec {
        enable_symlinks: published.enable_symlinks,
        ..published.spec.clone()
    }
}

/// What the file publishes besides its first artifact.
fn secondary_of(spec: &BuildSpec) -> BTreeMap<String, ArtifactsSpec> {
    let artifacts = spec.artifacts.iter().flat_map(|of| &of.secondary);
    artifacts
        .map(|(identifier, published)| (identifier.clone(), artifact_of(published)))
        .collect()
}

/// The variables that the file exports and that may be: `CodeBuild` exports no secrets, and no names that
/// start with `AWS_`.
fn exported_of(spec: &BuildSpec) -> Vec<String> {
    let names = spec.exported_variables.iter();
    names
        .filter(|name| !name.starts_with("AWS_") && !spec.secrets.contains_key(*name))
        .cloned()
        .collect()
}

/// The groups of reports that the file names.
fn reports_of(spec: &BuildSpec) -> Vec<ReportSpec> {
    let groups = spec.reports.iter();
    let groups = groups.map(|(name, group)| ReportSpec {
        group: name.clone(),
        // A word that is no format was found fault with.
        format: group.format.map_or("", ReportFormat::as_str).to_owned(),
        files: group.files.clone(),
        base_directory: group.base_directory.clone(),
        discard_paths: group.discard_paths,
    });
    groups.collect()
}

/// What a unit keeps for the next one.
struct Cached<'a>(Running<'a>);

impl Cached<'_> {
    /// The cache that the file asks for, if it has one that is to be used for `action`.
    fn asked(&self, action: CacheAction) -> Option<CacheSpec> {
        let Running { spec, caches, .. } = self.0;
        let cache = spec.cache.as_ref()?;
        let wanted = cache.action == CacheAction::Both || cache.action == action;
        (caches && wanted).then(|| cache.spec.clone())
    }

    /// How to choose one where it asks for none.
    fn unasked(&self) -> Option<UnaskedCache> {
        let Running {
            spec,
            phases,
            caches,
            ..
        } = self.0;
        if !caches || spec.cache.is_some() {
            return None;
        }
        let mut sections = phases.in_order().into_iter();
        let npm_ci =
            sections.any(|(_, section)| section.commands.iter().any(|text| runs_npm_ci(text)));
        Some(UnaskedCache { npm_ci })
    }
}

/// Whether a command says `npm ci`, in whatever it does else.
fn runs_npm_ci(command: &str) -> bool {
    let mut words =
        command.split(|char: char| char.is_whitespace() || ";&|(){}`\"'".contains(char));
    let mut after_npm = false;
    words.any(|word| {
        let found = after_npm && matches!(word, "ci" | "clean-install");
        // Options may stand between.
        after_npm = word == "npm" || after_npm && word.starts_with('-');
        found
    })
}

/// In which outcomes of `phase` the next one may follow.
const fn leaves(phase: Phase, section: &PhaseSpec) -> OutcomeSet {
    match (&section.on_failure, phase) {
        (OnFailure::Abort, _) => OutcomeSet::SUCCEEDED,
        (OnFailure::Continue, _)
        | (OnFailure::Transition | OnFailure::Retry(_), Phase::Build | Phase::PostBuild) => {
            OutcomeSet::RAN
        }
        (OnFailure::Transition | OnFailure::Retry(_), _) => OutcomeSet::SUCCEEDED,
    }
}

/// Appends the jobs of a unit, which is the index of one and what it runs; its first job needs `needs`.
pub(super) fn add_unit(
    graph: &mut JobGraph,
    (unit, running): (u32, Running<'_>),
    variables: Variables,
    needs: Vec<Edge>,
) {
    let mut needs = needs;
    let mut input = None;
    for PlannedPhase {
        phase,
        task,
        leaves,
    } in unit_tasks(running, variables)
    {
        let job = index(graph.jobs.len());
        graph.jobs.push(JobNode {
            unit,
            phase,
            task,
            needs,
            input,
        });
        needs = vec![Edge {
            job,
            accepts: leaves,
        }];
        input = Some(job);
    }
}

/// An index into units or jobs.
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("units and jobs are limited to JOBS_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_ci_is_found_in_commands_as_people_write_them() {
        for yes in [
            "npm ci",
            "cd app && npm ci",
            "npm --prefix app ci || npm --quiet ci",
            "(npm clean-install)",
            "cmp a b || { npm ci && touch x; }",
        ] {
            assert!(runs_npm_ci(yes), "{yes}");
        }
        for no in [
            "npm install",
            "npm run ci",
            "npm test; ci/run",
            "make npm-ci",
        ] {
            assert!(!runs_npm_ci(no), "{no}");
        }
    }
}
