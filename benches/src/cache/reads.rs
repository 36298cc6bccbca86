//! Reads of chunks that cannot be compressed: how fast they come, verified at the receiver, beside a bare
//! pump of bytes from memory over the same connection.

mod client;
mod pump;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    client::{Load, load},
    pump::serve_pump,
};
use super::process::{self, CachePlan, Process, Role};
use crate::{
    clock::{median, spread},
    report::Row,
};

/// What share of the pump's bytes per second chunks of 512 KiB have to reach, 16 in flight.
const PUMP_SHARE: f64 = 0.7;
/// How many bytes of chunks of each size the store has: more than any set in memory.
const STORED_BYTES: u64 = 512 << 20;
/// How many bytes one measurement of bulk reads moves.
const MOVED_BYTES: u64 = 768 << 20;

/// What one measurement found.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Took {
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// How many chunks.
    pub(crate) chunks: u64,
    /// How many bytes.
    pub(crate) bytes: u64,
}

impl Took {
    pub(crate) fn of(took: Duration, chunks: u64, bytes: u64) -> Self {
        Self {
            seconds: took.as_secs_f64(),
            chunks,
            bytes,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody reads the sixteenth digit of a rate"
    )]
    pub(crate) fn megabytes_per_second(self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody reads the sixteenth digit of a rate"
    )]
    pub(crate) fn chunks_per_second(self) -> f64 {
        self.chunks as f64 / self.seconds
    }
}

/// How chunks are asked for.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// How large each is, in bytes.
    size: u64,
    /// How many requests are under way.
    in_flight: usize,
    /// How many chunks a request names.
    batch: usize,
    /// The largest datagram, in bytes.
    datagram: u16,
}

impl Manner {
    fn name(&self) -> String {
        let size = match self.size {
            size if size < 1 << 20 => format!("{} KiB", size >> 10),
            size => format!("{} MiB", size >> 20),
        };
        let batch = match self.batch {
            1 => String::new(),
            batch => format!(" x {batch}"),
        };
        format!(
            "read {size}{batch}, {} in flight, {} B",
            self.in_flight, self.datagram
        )
    }
}

/// A running cache with data on its disk, and a running pump.
struct Stage {
    farm: PathBuf,
    cache: (Process, SocketAddr),
    pump: (Process, SocketAddr),
}

impl Stage {
    fn digests(&self, size: u64) -> PathBuf {
        digests_file(&self.farm, size)
    }

    fn read(&self, manner: &Manner) -> Result<Took> {
        run(Load::Read {
            farm: self.farm.clone(),
            address: self.cache.1,
            digests: self.digests(manner.size),
            in_flight: manner.in_flight,
            batch: manner.batch,
            bytes: bytes_for(manner),
            datagram: manner.datagram,
        })
    }

    fn pump(&self, datagram: u16) -> Result<Took> {
        run(Load::Pump {
            farm: self.farm.clone(),
            address: self.pump.1,
            bytes: MOVED_BYTES,
            datagram,
        })
    }
}

fn digests_file(farm: &Path, size: u64) -> PathBuf {
    farm.join(format!("digests-{size}"))
}

/// Small chunks one by one take longer.
fn bytes_for(manner: &Manner) -> u64 {
    match (manner.size, manner.batch, manner.in_flight) {
        (..65_536, 1, 1) => MOVED_BYTES / 96,
        (..65_536, 1, _) => MOVED_BYTES / 16,
        (..65_536, ..) | (..524_288, ..) => MOVED_BYTES / 3,
        _ => MOVED_BYTES,
    }
}

fn run(load: Load) -> Result<Took> {
    Process::start(&Role::Load(load))?.hear()
}

/// Measures all of it.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let stage = prepare(directory.path())?;
    let mut rows = Vec::new();
    for datagram in [1_452, 6_500] {
        for size in [4 << 10, 64 << 10, 512 << 10, 2 << 20] {
            for in_flight in [1, 16, 64] {
                let manner = Manner {
                    size,
                    in_flight,
                    batch: 1,
                    datagram,
                };
                rows.push(against_pump(&stage, &manner, pairs)?);
            }
        }
        let manner = Manner {
            size: 4 << 10,
            in_flight: 4,
            batch: 1024,
            datagram,
        };
        rows.push(against_pump(&stage, &manner, pairs)?);
    }
    Ok(rows)
}

fn prepare(farm: &Path) -> Result<Stage> {
    process::found(farm)?;
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("cache"),
        budget: u64::MAX,
    };
    {
        let mut cache = Process::start(&Role::Cache(plan.clone()))?;
        let address = cache.hear()?;
        for size in [4 << 10, 64 << 10, 512 << 10, 2 << 20] {
            run(Load::Fill {
                farm: farm.to_owned(),
                address,
                size,
                bytes: STORED_BYTES,
                digests: digests_file(farm, size),
            })?;
        }
    }
    // Opened again, the store has everything in its files and nothing in memory.
    let mut cache = Process::start(&Role::Cache(plan))?;
    let address = cache.hear()?;
    let mut pump = Process::start(&Role::Pump {
        farm: farm.to_owned(),
    })?;
    let pumps = pump.hear()?;
    Ok(Stage {
        farm: farm.to_owned(),
        cache: (cache, address),
        pump: (pump, pumps),
    })
}

fn against_pump(stage: &Stage, manner: &Manner, pairs: u32) -> Result<Row> {
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..pairs {
        let read = stage.read(manner)?;
        let pumped = stage.pump(manner.datagram)?.megabytes_per_second();
        ratios.push(read.megabytes_per_second() / pumped);
        ours.push(read);
        theirs.push(pumped);
    }
    let is_judged = (manner.size, manner.in_flight) == (512 << 10, 16);
    let chunks = median(ours.iter().map(|took| took.chunks_per_second()).collect());
    Ok(Row {
        name: manner.name(),
        value: median(
            ours.iter()
                .map(|took| took.megabytes_per_second())
                .collect(),
        ),
        unit: "MB/s",
        ceiling: is_judged.then_some(PUMP_SHARE),
        ratio: Some(median(ratios)),
        note: format!(
            "{chunks:.0} chunks/s; x a pump ({:.0} MB/s, spread {:.2})",
            median(theirs.clone()),
            spread(&theirs)
        ),
    })
}
