//! How large a graph becomes, before it is one.

use std::collections::BTreeMap;

use super::{
    PlanError, PlanRequest, Running,
    unit::{JOBS_PER_UNIT, unit_bytes},
};
use crate::spec::BatchTask;

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
    // What all tasks of one file carry, by the file.
    let mut shared = BTreeMap::new();
    for (task, running) in tasks {
        let file = std::ptr::from_ref(running.spec).addr();
        let of_spec = *shared.entry(file).or_insert_with(|| unit_bytes(running));
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
