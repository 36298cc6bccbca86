//! Durable writes: what is acknowledged is on the disk. Beside a plain file on the same disk, which is
//! appended to and synced.

use std::{fs::File, io::Write as _, net::SocketAddr, path::Path};

use anyhow::Result;

use super::{
    process::{self, CachePlan, Process, Role},
    reads::{Load, Took, run},
};
use crate::{
    clock::{Stopwatch, median, spread},
    noise::Noise,
    report::Row,
};

/// How often the plain file is synced when it is written in bulk, in bytes.
const SYNC_BYTES: usize = 8 << 20;

/// How chunks are written, and what is expected of it.
struct Manner {
    name: &'static str,
    /// How large each chunk is, in bytes.
    size: usize,
    in_flight: usize,
    /// How many of them go in one request, and are acknowledged together.
    together: usize,
    /// How many chunks one measurement writes.
    chunks: u64,
    /// How much the plain file gets between two syncs, in bytes, and how often.
    floor: (usize, u64),
    /// What share of the plain file's bytes per second has to be reached.
    ceiling: f64,
}

const MANNERS: [Manner; 4] = [
    Manner {
        name: "write 512 KiB, 64 in flight, durable",
        size: 512 << 10,
        in_flight: 64,
        together: 1,
        chunks: 512,
        floor: (SYNC_BYTES, 32),
        ceiling: 0.4,
    },
    Manner {
        name: "write 4 KiB, 1 in flight, durable",
        size: 4 << 10,
        in_flight: 1,
        together: 1,
        chunks: 500,
        floor: (4 << 10, 500),
        ceiling: 0.5,
    },
    Manner {
        name: "write 4 KiB, 64 in flight, durable",
        size: 4 << 10,
        in_flight: 64,
        together: 1,
        chunks: 10_000,
        floor: (4 << 10, 500),
        ceiling: 8.0,
    },
    Manner {
        name: "write 4 KiB, 64 in flight, 8 to a request, durable",
        size: 4 << 10,
        in_flight: 64,
        together: 8,
        chunks: 20_000,
        floor: (4 << 10, 500),
        ceiling: 8.0,
    },
];

/// Measures what has `only` in its name.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(pairs: u32, only: &str) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    process::found(farm)?;
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("cache"),
        budget: u64::MAX,
    };
    let mut cache = Process::start(&Role::Cache(plan))?;
    let address = cache.hear()?;
    MANNERS
        .iter()
        .filter(|manner| manner.name.contains(only))
        .map(|manner| against_file(manner, (farm, address), pairs))
        .collect()
}

fn against_file(manner: &Manner, cache: (&Path, SocketAddr), pairs: u32) -> Result<Row> {
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for pair in 0..pairs {
        let written = run(Load::Write {
            farm: cache.0.to_owned(),
            address: cache.1,
            size: manner.size,
            in_flight: manner.in_flight,
            together: manner.together,
            chunks: manner.chunks,
            seed: u64::from(pair),
        })?;
        let floor = append(cache.0, manner.floor)?.megabytes_per_second();
        ratios.push(written.megabytes_per_second() / floor);
        ours.push(written);
        theirs.push(floor);
    }
    let chunks = median(ours.iter().map(|took| took.chunks_per_second()).collect());
    Ok(Row {
        name: manner.name.to_owned(),
        value: median(
            ours.iter()
                .map(|took| took.megabytes_per_second())
                .collect(),
        ),
        unit: "MB/s",
        ceiling: Some(manner.ceiling),
        ratio: Some(median(ratios)),
        note: format!(
            "{chunks:.0} chunks/s; x a plain file synced every {} KiB ({:.1} MB/s, spread {:.2})",
            manner.floor.0 >> 10,
            median(theirs.clone()),
            spread(&theirs)
        ),
    })
}

/// Appends to a fresh file, with a sync after each piece.
fn append(directory: &Path, (piece, count): (usize, u64)) -> Result<Took> {
    let path = directory.join("plain");
    let bytes = Noise::new(1).bytes(piece);
    let mut file = File::create(&path)?;
    let watch = Stopwatch::start();
    for _ in 0..count {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    let took = Took::of(watch.elapsed(), count, count * piece as u64);
    std::fs::remove_file(&path)?;
    Ok(took)
}
