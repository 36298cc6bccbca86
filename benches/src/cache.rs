//! The cache: what it reads, writes and knows per second, and what it takes for that, beside the machine's
//! limits and beside peers. Data is on disk in a fresh store; server and client are processes of their own.
//!
//! Each part is a file of its own: a function that gives rows.

mod eviction;
mod memory;
mod path;
mod presence;
mod process;
mod reads;
mod relay;
mod trees;
mod writes;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use self::process::{CachePlan, Process, Role, credentials, found, play, runtime, team};
use crate::report::Row;

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// Chunks out, beside a bare pump and peers
    Reads,
    /// A gigabyte of budget, ten written
    Eviction,
    /// Trees in and out, beside a writer from memory, `cp -r` and an archive over TLS
    Trees,
    /// Chunks in, durable, beside a plain file
    Writes,
    /// Which of two million chunks are there
    Presence,
    /// A long path that loses something: restores beside a pump, and four that share it
    Relay,
    /// Datagrams of several sizes, with and without GSO, acknowledged more or less often; links need root
    Path,
    /// What the server takes with many connections, and after much was stored
    Memory,
}

/// Measures one part, or all of them, with so many pairs for each figure; of reads, writes and paths those whose
/// names have `only` in them. `stored` is how many bytes are written to see what memory that takes.
///
/// # Errors
///
/// If a process cannot be started, or says something unexpected.
pub(crate) fn measure(
    part: Option<Part>,
    (pairs, only): (u32, &str),
    stored: u64,
) -> Result<Vec<Row>> {
    let all = Part::value_variants();
    let parts = all
        .iter()
        .filter(|each| part.is_none_or(|one| one == **each));
    let mut rows = Vec::new();
    for part in parts {
        rows.extend(match part {
            Part::Reads => reads::measure(pairs, only)?,
            Part::Eviction => eviction::measure(pairs)?,
            Part::Trees => trees::measure(pairs)?,
            Part::Writes => writes::measure(pairs, only)?,
            Part::Presence => presence::measure(pairs)?,
            Part::Relay => relay::measure(pairs)?,
            Part::Path => path::measure(pairs, only)?,
            Part::Memory => memory::measure(stored)?,
        });
    }
    Ok(rows)
}
