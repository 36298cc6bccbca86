//! How large a graph becomes, before it is one.

use std::collections::BTreeMap;

use super::{PlanError, PlanRequest, Running, unit::JOBS_PER_UNIT};
use crate::spec::{BatchTask, BuildSpec};

/// How many bytes the texts of all jobs may take together. Each task of a batch carries the commands of
/// the whole file, so a small file could become a huge graph; real files stay a hundred times below.
const GRAPH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many bytes a text takes besides its own: in memory its length and place, in the journal quotes and a
/// comma, so that a quarter of a million empty commands are no small thing.
const TEXT_BYTES: usize = 64;
/// How many bytes an edge takes, in memory or in the journal, whichever is more.
const EDGE_BYTES: usize = 32;

/// Refuses what would become too large a graph.
///
/// # Errors
///
/// If it would.
pub(super) fn check_size<'a>(
    tasks: impl Iterator<Item = (&'a BatchTask, Running<'a>)>,
    request: &PlanRequest,
) -> Result<(), PlanError> {
    let of_request = variable_bytes(&request.variables);
    let (mut count, mut bytes) = (0, 0_usize);
    // What all tasks of one file carry; tasks of one file often follow each other.
    let mut shared: Option<(&BuildSpec, usize)> = None;
    for (task, running) in tasks {
        let of_spec = match shared {
            Some((spec, bytes)) if std::ptr::eq(spec, running.spec) => bytes,
            _ => spec_bytes(running),
        };
        shared = Some((running.spec, of_spec));
        let edges = JOBS_PER_UNIT * EDGE_BYTES * task.depend_on.len();
        let own = variable_bytes(&task.variables) + edges;
        bytes = bytes.saturating_add(of_request + of_spec + own);
        count += 1;
    }
    if GRAPH_BYTES_MAX < bytes {
        return Err(PlanError::TooLarge {
            tasks: count,
            bytes,
            limit: GRAPH_BYTES_MAX,
        });
    }
    Ok(())
}

/// What each unit carries that runs this.
fn spec_bytes(Running { spec, phases, .. }: Running<'_>) -> usize {
    let commands: usize = phases
        .in_order()
        .iter()
        .flat_map(|(_, phase)| phase.commands.iter().chain(&phase.finally))
        .map(|text| text_bytes(text))
        .sum();
    let artifacts = spec.artifacts.iter().flat_map(|artifacts| {
        let all = [&artifacts.primary].into_iter();
        let all = all.chain(artifacts.secondary.values());
        all.flat_map(|published| {
            let spec = &published.spec;
            spec.files.iter().chain(&spec.exclude_paths)
        })
    });
    let artifacts: usize = artifacts.map(|text| text_bytes(text)).sum();
    let cache = spec.cache.iter().flat_map(|cache| {
        let keys = cache.spec.key.iter().chain(&cache.spec.fallback_keys);
        cache.spec.paths.iter().chain(keys)
    });
    // It is restored in one job and saved in another.
    let cache: usize = cache.map(|text| 2 * text_bytes(text)).sum();
    let exported = spec.exported_variables.iter();
    // Each of the four phases with commands has them.
    let exported: usize = exported.map(|name| 4 * text_bytes(name)).sum();
    let secrets = spec.secrets.iter();
    let secrets: usize = secrets
        .map(|(name, of)| text_bytes(name) + text_bytes(&of.reference))
        .sum();
    commands + artifacts + cache + exported + secrets + variable_bytes(&spec.variables)
}

/// What a text takes, in bytes.
const fn text_bytes(text: &str) -> usize {
    text.len() + TEXT_BYTES
}

fn variable_bytes(variables: &BTreeMap<String, String>) -> usize {
    let variables = variables.iter();
    variables
        .map(|(name, value)| text_bytes(name) + text_bytes(value))
        .sum()
}
