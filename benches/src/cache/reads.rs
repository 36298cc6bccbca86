//! Reads of chunks that cannot be compressed: how fast they come, verified at the receiver, beside a bare
//! pump of bytes from memory over the same connection.

mod client;
mod more;
mod peers;
mod pump;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use transport::Datagrams;

use self::peers::Peers;
pub(crate) use self::{
    client::{Load, load},
    more::Press,
    pump::{receive, serve_pump},
};
use super::process::{self, CachePlan, Process, Role};
use crate::{
    clock::{median, spread},
    report::Row,
};

/// The sizes of chunks, in bytes.
const SIZES: [u64; 4] = [4 << 10, 64 << 10, 512 << 10, 2 << 20];
/// How many small chunks one batched request names, and how many such requests are under way.
const BATCH: usize = 1024;
const BATCHES: usize = 4;
/// How many chunks of 4 KiB are read over and over, so that they are hot: half of what the set takes.
const HOT_CHUNKS: usize = 8192;
/// What a request for one chunk is to reach of iroh-blobs, and batched reads of small ones from the
/// database and from the hot set.
const IROH_SHARE: f64 = 2.0;
const IROH_SHARE_BATCHED: f64 = 4.0;
const IROH_SHARE_HOT: f64 = 8.0;
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
    /// How many bytes the datagrams that came had on average; `None`: nobody has looked.
    #[serde(default)]
    pub(crate) datagram_bytes: Option<u64>,
}

impl Took {
    pub(crate) fn of(took: Duration, chunks: u64, bytes: u64) -> Self {
        Self {
            seconds: took.as_secs_f64(),
            chunks,
            bytes,
            datagram_bytes: None,
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
    /// How many chunks are read over and over; `None`: all there are.
    distinct: Option<usize>,
}

impl Manner {
    /// One by one.
    const fn single(size: u64, in_flight: usize, datagram: u16) -> Self {
        Self {
            size,
            in_flight,
            batch: 1,
            datagram,
            distinct: None,
        }
    }

    /// Small chunks, many with each request.
    const fn batched(datagram: u16, distinct: Option<usize>) -> Self {
        Self {
            size: 4 << 10,
            in_flight: BATCHES,
            batch: BATCH,
            datagram,
            distinct,
        }
    }

    /// What is to be reached: as a share of the pump, as a share of iroh-blobs.
    fn ceilings(&self) -> (Option<f64>, Option<f64>) {
        match (self.batch, self.size, self.in_flight, self.distinct) {
            (1, 524_288, 16, _) => (Some(PUMP_SHARE), Some(IROH_SHARE)),
            (1, ..) => (None, None),
            (.., None) => (None, Some(IROH_SHARE_BATCHED)),
            (.., Some(_)) => (None, Some(IROH_SHARE_HOT)),
        }
    }

    /// How many blobs are read from a peer, and how many requests are under way there: a peer has no
    /// batches, and gets as many requests as serve it best.
    fn of_peer(&self) -> (u64, usize) {
        match self.batch {
            1 => (bytes_for(self) / self.size / 2, self.in_flight),
            _ => (20_000, 64),
        }
    }

    fn name(&self) -> String {
        let size = match self.size {
            size if size < 1 << 20 => format!("{} KiB", size >> 10),
            size => format!("{} MiB", size >> 20),
        };
        let batch = match self.batch {
            1 => String::new(),
            batch => format!(" x {batch}"),
        };
        let hot = self.distinct.map_or("", |_| ", hot");
        format!(
            "read {size}{batch}{hot}, {} in flight, {} B",
            self.in_flight, self.datagram
        )
    }
}

/// A running cache with data on its disk, and a running pump.
struct Stage {
    farm: PathBuf,
    cache: (Process, SocketAddr),
    pump: (Process, SocketAddr),
    peers: Peers,
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
            distinct: manner.distinct,
            datagrams: Datagrams::up_to(manner.datagram),
        })
    }

    fn pump(&self, datagram: u16) -> Result<Took> {
        run(Load::Pump {
            farm: self.farm.clone(),
            address: self.pump.1,
            bytes: MOVED_BYTES,
            datagrams: Datagrams::up_to(datagram),
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

/// Starts a client and waits for what it says.
///
/// # Errors
///
/// If it fails.
pub(crate) fn run(load: Load) -> Result<Took> {
    Process::start(&Role::Load(load))?.hear()
}

/// Measures what has `only` in its name.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(pairs: u32, only: &str) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let stage = prepare(directory.path())?;
    let mut rows = Vec::new();
    for manner in manners().filter(|manner| manner.name().contains(only)) {
        // What is judged is measured as often as was asked for, the rest is told for scale.
        let pairs = match manner.ceilings() {
            (None, None) => pairs.min(3),
            _ => pairs,
        };
        rows.extend(beside_all(&stage, &manner, pairs)?);
    }
    for missing in &stage.peers.missing {
        rows.push(Row {
            name: "peer not measured".to_owned(),
            value: 0.0,
            unit: "",
            ceiling: None,
            ratio: None,
            note: missing.clone(),
        });
    }
    Ok(rows)
}

fn manners() -> impl Iterator<Item = Manner> {
    [6_500, 1_452].into_iter().flat_map(|datagram| {
        let single = SIZES.into_iter().flat_map(move |size| {
            [1, 16, 64].map(|in_flight| Manner::single(size, in_flight, datagram))
        });
        let batched = [None, Some(HOT_CHUNKS)];
        single.chain(batched.map(|distinct| Manner::batched(datagram, distinct)))
    })
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
        for size in SIZES {
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
        peers: Peers::start(farm, &SIZES),
    })
}

/// Reads in alternation from the cache, the pump and the peers.
fn beside_all(stage: &Stage, manner: &Manner, pairs: u32) -> Result<Vec<Row>> {
    let mut ours = Vec::new();
    let mut others: [Vec<Took>; 3] = Default::default();
    for _ in 0..pairs {
        ours.push(stage.read(manner)?);
        others[0].push(stage.pump(manner.datagram)?);
        let of_peer = manner.of_peer();
        others[1].extend(stage.peers.read_iroh(manner.size, of_peer)?);
        others[2].extend(stage.peers.read_nginx(manner.size, of_peer)?);
    }
    let (of_pump, of_iroh) = manner.ceilings();
    let chunks = median(ours.iter().map(|took| took.chunks_per_second()).collect());
    let mut rows = Vec::new();
    let whom = ["a pump", "iroh-blobs", "nginx"];
    for ((whom, theirs), ceiling) in whom.iter().zip(&others).zip([of_pump, of_iroh, None]) {
        if theirs.len() != ours.len() {
            continue;
        }
        let theirs: Vec<f64> = theirs
            .iter()
            .map(|took| took.megabytes_per_second())
            .collect();
        let ours: Vec<f64> = ours
            .iter()
            .map(|took| took.megabytes_per_second())
            .collect();
        rows.push(Row {
            name: manner.name(),
            ratio: Some(median(
                ours.iter().zip(&theirs).map(|(a, b)| a / b).collect(),
            )),
            value: median(ours),
            unit: "MB/s",
            ceiling,
            note: format!(
                "{chunks:.0} chunks/s; x {whom} ({:.0} MB/s, spread {:.2})",
                median(theirs.clone()),
                spread(&theirs)
            ),
        });
    }
    Ok(rows)
}
