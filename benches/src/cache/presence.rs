//! Presence: which of many chunks are there, asked by one client in full requests. Every check asks
//! whether the client's team may know of the chunk.

use anyhow::{Context as _, Result};

use super::{
    process::{self, CachePlan, Process, Role},
    reads::{Load, run},
};
use crate::{
    clock::{median, spread},
    report::Row,
};

/// How many chunks the store has.
const STORED: u64 = 2_000_000;
/// How large each is, in bytes: as small as chunks of a farm get, since only their names matter.
const CHUNK_BYTES: u64 = 64;
/// How many digests are asked for, half of which are there.
const ASKED: usize = 4_000_000;
/// How many per second have to be answered.
const CEILING: f64 = 1e6;
/// The same of what nobody has asked for since the server was started.
const FIRST_CEILING: f64 = 7e5;

/// Measures it.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    process::found(farm)?;
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("cache"),
        budget: u64::MAX,
    };
    let digests = farm.join("digests");
    let filled = {
        let mut cache = Process::start(&Role::Cache(plan.clone()))?;
        run(Load::Fill {
            farm: farm.to_owned(),
            address: cache.hear()?,
            size: CHUNK_BYTES,
            bytes: STORED * CHUNK_BYTES,
            digests: digests.clone(),
        })?
    };
    let mut cache = Process::start(&Role::Cache(plan))?;
    let address = cache.hear()?;
    let mut rates = Vec::new();
    for _ in 0..pairs {
        let took = run(Load::Presence {
            farm: farm.to_owned(),
            address,
            digests: digests.clone(),
            count: ASKED,
        })?;
        rates.push(took.chunks_per_second());
    }
    let (first, again) = rates
        .split_first()
        .context("there are two pairs at least")?;
    Ok(vec![
        Row {
            name: format!("write {STORED} chunks of {CHUNK_BYTES} B"),
            value: filled.chunks_per_second(),
            unit: "1/s",
            ceiling: None,
            ratio: None,
            note: "in bulk, durable".to_owned(),
        },
        Row {
            name: "presence with team checks, half there, asked for the first time".to_owned(),
            value: *first,
            unit: "1/s",
            ceiling: Some(FIRST_CEILING),
            ratio: None,
            note: format!("one client, {STORED} chunks; once"),
        },
        Row {
            name: "presence with team checks, half there, asked again".to_owned(),
            value: median(again.to_vec()),
            unit: "1/s",
            ceiling: Some(CEILING),
            ratio: None,
            note: format!("one client, {STORED} chunks, spread {:.2}", spread(&rates)),
        },
    ])
}
