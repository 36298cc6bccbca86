//! What the parser says of a file, in the words of the table: the one place that knows the parser's types.

use std::collections::BTreeMap;

use buildspec::{
    Batch, BuildSpec, Diagnostic, OnFailure, PhaseSpec, SecretStore, Severity, Tasks, Version,
};
use protocol::job::Shell;

/// What a warning says of a key that is right and has no effect here.
const NOT_ACTED_ON: &str = " is not acted on";

/// A diagnostic, in the order of the file.
#[derive(Debug)]
pub(super) struct Remark {
    pub(super) line: usize,
    pub(super) column: usize,
    /// Message and hint.
    pub(super) text: String,
}

/// What the parser says of a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) errors: Vec<Remark>,
    pub(super) warnings: Vec<Remark>,
    /// What the farm does not act on although the file is right: "`key` in its section".
    pub(super) not_acted_on: Vec<String>,
    /// What an accepted file has; `None` for a refused one.
    pub(super) facts: Option<Facts>,
}

/// What an accepted file has. `None` as a whole means that the parser's type does not tell it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) version: &'static str,
    pub(super) commands: BTreeMap<String, usize>,
    pub(super) finally: BTreeMap<String, usize>,
    pub(super) on_failure: BTreeMap<String, String>,
    pub(super) runtimes: Option<BTreeMap<String, String>>,
    pub(super) variables: Vec<String>,
    pub(super) parameter_store: Vec<String>,
    pub(super) secrets_manager: Vec<String>,
    pub(super) exported: Option<Vec<String>>,
    pub(super) shell: &'static str,
    /// How many patterns; `None` inside: no section.
    pub(super) artifacts: Option<usize>,
    pub(super) secondary: Option<Vec<String>>,
    pub(super) cache_paths: Option<usize>,
    pub(super) reports: Option<Vec<String>>,
    pub(super) batch: Option<FoundBatch>,
}

/// The batch of a file.
#[derive(Debug)]
pub(super) struct FoundBatch {
    pub(super) kind: &'static str,
    /// How many builds; `None`: the parser's type does not tell.
    pub(super) tasks: Option<usize>,
}

impl Found {
    /// Has the parser read `bytes`.
    pub(super) fn in_file(bytes: &[u8]) -> Self {
        let text = match buildspec::text_of(bytes) {
            Ok(text) => text,
            Err(error) => {
                return Self {
                    errors: vec![remark(&error.diagnostic())],
                    warnings: Vec::new(),
                    not_acted_on: Vec::new(),
                    facts: None,
                };
            }
        };
        let parsed = buildspec::parse(text);
        let of = |severity| {
            let mut remarks: Vec<Remark> = parsed
                .diagnostics
                .iter()
                .filter(|diagnostic| diagnostic.severity == severity)
                .map(remark)
                .collect();
            remarks.sort_by_key(|remark| (remark.line, remark.column));
            remarks
        };
        let (farms, warnings): (Vec<_>, Vec<_>) = of(Severity::Warning)
            .into_iter()
            .partition(|remark| not_acted_on(&remark.text).is_some());
        let not_acted_on = farms
            .iter()
            .filter_map(|remark| not_acted_on(&remark.text))
            .collect();
        Self {
            errors: of(Severity::Error),
            warnings,
            not_acted_on,
            facts: parsed.spec.as_ref().map(facts),
        }
    }
}

/// What a warning says is not acted on; `None` if it says something else.
fn not_acted_on(text: &str) -> Option<String> {
    Some(text.split_once(NOT_ACTED_ON)?.0.to_owned())
}

fn remark(diagnostic: &Diagnostic) -> Remark {
    let mut text = diagnostic.message.clone();
    if let Some(hint) = &diagnostic.hint {
        text.push_str("; ");
        text.push_str(hint);
    }
    Remark {
        line: diagnostic.place.line,
        column: diagnostic.place.column,
        text,
    }
}

fn facts(spec: &BuildSpec) -> Facts {
    let phases: Vec<(String, &PhaseSpec)> = spec
        .phases
        .iter()
        .flat_map(|phases| phases.in_order())
        .map(|(phase, spec)| (phase.as_str().to_lowercase(), spec))
        .collect();
    let counted = |commands: fn(&PhaseSpec) -> usize| {
        phases
            .iter()
            .map(|(name, phase)| (name.clone(), commands(phase)))
            .filter(|(_, count)| *count > 0)
            .collect()
    };
    let secrets = |store| {
        spec.secrets
            .iter()
            .filter(|(_, secret)| secret.store == store)
            .map(|(name, _)| name.clone())
            .collect()
    };
    Facts {
        version: match spec.version {
            Version::V0_1 => "0.1",
            Version::V0_2 => "0.2",
        },
        commands: counted(|phase| phase.commands.len()),
        finally: counted(|phase| phase.finally.len()),
        on_failure: phases
            .iter()
            .filter_map(|(name, phase)| Some((name.clone(), on_failure(&phase.on_failure)?)))
            .collect(),
        runtimes: Some(runtimes(&phases)),
        variables: spec.variables.keys().cloned().collect(),
        parameter_store: secrets(SecretStore::ParameterStore),
        secrets_manager: secrets(SecretStore::SecretsManager),
        exported: Some(sorted(spec.exported_variables.clone())),
        shell: match spec.shell {
            Shell::Sh => "/bin/sh",
            Shell::Bash => "bash",
        },
        artifacts: spec
            .artifacts
            .as_ref()
            .map(|artifacts| artifacts.primary.spec.files.len()),
        secondary: Some(spec.artifacts.as_ref().map_or_else(Vec::new, |artifacts| {
            artifacts.secondary.keys().cloned().collect()
        })),
        cache_paths: spec.cache.as_ref().map(|cache| cache.spec.paths.len()),
        reports: Some(spec.reports.keys().cloned().collect()),
        batch: spec.batch.as_ref().map(batch),
    }
}

/// As a file has it; `None` if it has nothing.
fn on_failure(on_failure: &OnFailure) -> Option<String> {
    match on_failure {
        OnFailure::Transition => None,
        OnFailure::Abort => Some("ABORT".to_owned()),
        OnFailure::Continue => Some("CONTINUE".to_owned()),
        OnFailure::Retry(retry) => Some(format!("RETRY-{}-{}", retry.count, retry.pattern)),
    }
}

fn batch(batch: &Batch) -> FoundBatch {
    let kind = match &batch.tasks {
        Tasks::List(_) => "build-list",
        Tasks::Graph(_) => "build-graph",
        Tasks::Matrix(_) => "build-matrix",
        Tasks::Fanout(_) => "build-fanout",
    };
    let tasks = Some(batch.tasks.count());
    FoundBatch { kind, tasks }
}

/// Of all phases.
fn runtimes(phases: &[(String, &PhaseSpec)]) -> BTreeMap<String, String> {
    let versions = phases.iter().flat_map(|(_, phase)| &phase.runtime_versions);
    versions
        .map(|(name, version)| (name.clone(), version.clone()))
        .collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
