//! Presence: which of many chunks are there, asked by one client in full requests. Every check asks
//! whether the client's team may know of the chunk. The server that took the chunks is asked, and one that was
//! started since, once for the first time and then again.

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
/// The same of what nobody has written or asked for since the server was started.
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
    let ask = |address| {
        let took = run(Load::Presence {
            farm: farm.to_owned(),
            address,
            digests: digests.clone(),
            count: ASKED,
        });
        anyhow::Ok(took?.chunks_per_second())
    };
    let (filled, written) = {
        let mut cache = Process::start(&Role::Cache(plan.clone()))?;
        let address = cache.hear()?;
        let filled = run(Load::Fill {
            farm: farm.to_owned(),
            address,
            size: CHUNK_BYTES,
            bytes: STORED * CHUNK_BYTES,
            digests: digests.clone(),
        })?;
        (filled, ask(address)?)
    };
    let mut cache = Process::start(&Role::Cache(plan))?;
    let address = cache.hear()?;
    let rates = (0..pairs).map(|_| ask(address));
    let rates = rates.collect::<Result<Vec<f64>>>()?;
    let (first, again) = rates
        .split_first()
        .context("there are two pairs at least")?;
    let once = format!("one client, {STORED} chunks; once");
    let spread = spread(&rates);
    let more = format!("one client, {STORED} chunks, spread {spread:.2}");
    Ok(vec![
        Row {
            name: format!("write {STORED} chunks of {CHUNK_BYTES} B"),
            value: filled.chunks_per_second(),
            unit: "1/s",
            ceiling: None,
            ratio: None,
            note: "in bulk, durable".to_owned(),
        },
        row("asked where they were written", written, CEILING, &once),
        row("asked first after a start", *first, FIRST_CEILING, &once),
        row("asked again", median(again.to_vec()), CEILING, &more),
    ])
}

fn row(what: &str, value: f64, ceiling: f64, note: &str) -> Row {
    Row {
        name: format!("presence with team checks, half there, {what}"),
        value,
        unit: "1/s",
        ceiling: Some(ceiling),
        ratio: None,
        note: note.to_owned(),
    }
}
