//! Memory: the most that the server has had, with many connections that ask for much and read slowly or
//! not at all, with as many that write more than it takes, and after much was stored.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{
    process::{self, CachePlan, Process, Role},
    reads::{Load, Press, run},
};
use crate::report::Row;

/// What the server may take, in MiB.
const CEILING: f64 = 512.0;
const CHUNK_BYTES: u64 = 2 << 20;
/// How many bytes of chunks there are to read.
const READ_BYTES: u64 = 1 << 30;
/// How many connections there are: half of them do not read; all of them write.
const CONNECTIONS: usize = 32;
/// How many chunks each has asked for at any time, or writes.
const IN_FLIGHT: usize = 64;
/// How many bytes those that read get, together.
const MOVED_BYTES: u64 = 8 << 30;
/// How many bytes of chunks a cache takes in a second whose writes are slow: all that is written would take it four
/// minutes.
const SLOW_BYTES_PER_SECOND: u64 = 16 << 20;
/// How long such a cache is written to: ten times what loopback needs to fill all windows.
const PRESS_MILLIS: u64 = 10_000;

/// Measures it, with so many bytes stored after the reads.
///
/// # Errors
///
/// If a process does not do what it is there for, or the disk has no room for the bytes.
pub(crate) fn measure(stored: u64) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    process::found(farm)?;
    let pressed = pressed(farm)?;
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("cache"),
        budget: u64::MAX,
    };
    let fill = |address, size, bytes, name: &str| {
        run(Load::Fill {
            farm: farm.to_owned(),
            address,
            size,
            bytes,
            digests: farm.join(name),
        })
    };
    let mut cache = Process::start(&Role::Cache(plan))?;
    let address = cache.hear()?;
    fill(address, CHUNK_BYTES, READ_BYTES, "digests")?;
    let before = mebibytes(&cache)?;
    let read = run(Load::Hold {
        farm: farm.to_owned(),
        address,
        digests: farm.join("digests"),
        connections: CONNECTIONS,
        in_flight: IN_FLIGHT,
        bytes: MOVED_BYTES,
    })?;
    ensure!(MOVED_BYTES <= read.bytes, "those who read got too little");
    let reads = mebibytes(&cache)?;
    let written = fill(address, 512 << 10, stored, "more")?;
    let after = mebibytes(&cache)?;
    Ok(vec![
        row(
            format!("VmHWM after {CONNECTIONS} x {IN_FLIGHT} x 2 MiB asked for"),
            reads,
            format!(
                "half of them not reading; {before:.0} before; the others {:.0} MB/s",
                read.megabytes_per_second()
            ),
        ),
        pressed,
        row(
            format!("VmHWM after {} GiB stored", stored >> 30),
            after,
            format!("at {:.0} MB/s", written.megabytes_per_second()),
        ),
    ])
}

/// What a cache whose writes are slow has while many connections write.
fn pressed(farm: &Path) -> Result<Row> {
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("slow"),
        budget: u64::MAX,
    };
    let mut cache = Process::start(&Role::SlowCache {
        plan,
        bytes_per_second: SLOW_BYTES_PER_SECOND,
    })?;
    let address = cache.hear()?;
    let before = mebibytes(&cache)?;
    let sent = run(Load::Press(Press {
        farm: farm.to_owned(),
        address,
        size: CHUNK_BYTES,
        connections: CONNECTIONS,
        in_flight: IN_FLIGHT,
        millis: PRESS_MILLIS,
    }))?;
    let all = CHUNK_BYTES * (CONNECTIONS * IN_FLIGHT) as u64;
    ensure!(sent.bytes < all, "all was written: the cache is not slow");
    Ok(row(
        format!("VmHWM, {CONNECTIONS} x {IN_FLIGHT} x 2 MiB written, slowly taken"),
        mebibytes(&cache)?,
        format!(
            "{before:.0} before; {} MiB sent in {:.0} s, of which the cache takes {} MiB/s",
            sent.bytes >> 20,
            sent.seconds,
            SLOW_BYTES_PER_SECOND >> 20
        ),
    ))
}

fn row(name: String, value: f64, note: String) -> Row {
    Row {
        name,
        value,
        unit: "MiB",
        ceiling: Some(CEILING),
        ratio: None,
        note,
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory has fewer than 52 bits")]
fn mebibytes(cache: &Process) -> Result<f64> {
    let peak = cache.memory_peak().context("the cache has ended")?;
    Ok((peak >> 10) as f64 / 1024.0)
}
