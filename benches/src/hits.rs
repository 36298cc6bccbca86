//! Hit rates: the history of commits of several projects, replayed through a real cache server with caches
//! of several sizes; how often, for how many bytes and seconds, an entry is there under its own key, under
//! another one that will do, or at least its chunks. Beside it what simulations with as much room do.

mod history;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context as _, Result};
use cache::{
    eviction::Measure,
    hits::{AtSize, Chart, Counts, Eviction, Found, Lookup, Rates, bound, distinct_bytes, percent},
};

use crate::{
    cache::{CachePlan, Process, Role, found, runtime},
    entries::Shelf,
    report::Row,
};

/// How large all chunks are, in bytes.
pub(crate) const CHUNK_BYTES: u64 = 256 << 10;
/// How long holds last, in milliseconds: one build after another, each takes less.
const HOLD_MILLIS: u64 = 1_000;
/// How large the caches are, in eighths of what all chunks of the history have. Of its budget a server has
/// about two thirds for chunks. One more has room for everything.
const EIGHTHS: [u64; 5] = [2, 3, 4, 6, 8];
/// After so many lookups it is looked what the cache has.
const LOOK_LOOKUPS: usize = 25;
/// The server, among what chooses the victims.
const SERVED: &str = "served";
/// What is simulated.
const SIMULATED: [Eviction; 5] = [
    Eviction::Chosen,
    Eviction::Lru,
    Eviction::S3Fifo,
    Eviction::GreedyDual,
    Eviction::Clairvoyant,
];
/// Whose curves are drawn.
const DRAWN: [&str; 3] = [SERVED, Eviction::Lru.name(), Eviction::Clairvoyant.name()];

/// What came of a history.
#[derive(Debug)]
pub(crate) struct Measured {
    /// One figure each.
    pub(crate) rows: Vec<Row>,
    /// All of them, for people.
    pub(crate) table: String,
}

/// What a server did.
#[derive(Debug)]
struct Served {
    rates: Rates,
    /// How many bytes of chunks it had, on the average of the second half; all that there may be, if it had
    /// to give up nothing.
    room: u64,
    /// The most that it was seen to have, in the same way.
    room_max: u64,
}

/// Replays the history for all sizes, and writes the table and the chart to `documents`, if that is given.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(commits: usize, documents: Option<&Path>) -> Result<Measured> {
    let lookups = history::history(7, commits);
    let all = distinct_bytes(&lookups);
    let budgets = EIGHTHS.iter().map(|eighths| all / 8 * eighths);
    let mut sizes = Vec::new();
    let mut rooms = Vec::new();
    for budget in budgets.chain([u64::MAX]) {
        let served = replay_through_server(&lookups, budget)?;
        let mut size = AtSize::simulate(&lookups, served.room, &SIMULATED);
        size.bytes = budget;
        size.bound = bound(&lookups, served.room_max);
        size.rates.insert(0, (SERVED, served.rates));
        sizes.push(size);
        rooms.push(served.room);
    }
    let chart = Chart {
        sizes: &sizes,
        name: size_name,
    };
    let table = chart.table();
    if let Some(directory) = documents {
        let text = document(&lookups, commits, (&sizes, &rooms), &table);
        fs::create_dir_all(directory)?;
        fs::write(directory.join("hits.md"), text)?;
        let curves = chart.curves(Measure::Millis, &DRAWN);
        fs::write(directory.join("hits.svg"), curves)?;
    }
    Ok(Measured {
        rows: sizes.iter().flat_map(rows).collect(),
        table,
    })
}

fn replay_through_server(lookups: &[Lookup], budget: u64) -> Result<Served> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    found(farm)?;
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join("cache"),
        budget,
    };
    let mut server = Process::start(&Role::ShortHolds {
        plan,
        hold_millis: HOLD_MILLIS,
    })?;
    let address: SocketAddr = server.hear()?;
    runtime()?.block_on(async {
        let shelves = Shelves::dial(farm, address).await?;
        play(&shelves, lookups).await
    })
}

/// The shelves of all teams, by their names: each team has its own connection and namespace.
struct Shelves(BTreeMap<String, Shelf>);

impl Shelves {
    async fn dial(farm: &Path, address: SocketAddr) -> Result<Self> {
        let mut shelves = BTreeMap::new();
        for number in 0..history::TEAMS {
            let name = history::team_name(number);
            let shelf = Shelf::dial_for(name.parse()?, (farm, address), CHUNK_BYTES).await?;
            shelves.insert(name, shelf);
        }
        Ok(Self(shelves))
    }

    /// The shelf for a key of the history, and the key in that team's namespace.
    fn of<'k>(&self, key: &'k str) -> Result<(&Shelf, &'k str)> {
        let (team, path) = key.split_once('/').context("a key begins with its team")?;
        let shelf = self.0.get(team);
        Ok((shelf.with_context(|| format!("no team is `{team}`"))?, path))
    }

    /// How many bytes of chunks the cache has.
    async fn chunk_bytes(&self) -> Result<u64> {
        let shelf = self.0.values().next().context("there are teams")?;
        Ok(shelf.client.stats().await?.bytes)
    }

    /// How many entries the cache has.
    async fn entries(&self) -> Result<usize> {
        let mut entries = 0;
        for shelf in self.0.values() {
            let namespace = shelf.namespace();
            let list = shelf.client.list_entries(&namespace, "").await?;
            entries += list.len();
        }
        Ok(entries)
    }
}

async fn play(shelves: &Shelves, lookups: &[Lookup]) -> Result<Served> {
    let mut rates = Rates::default();
    let mut written: BTreeMap<&str, &Lookup> = BTreeMap::new();
    let (mut looks, mut looked, mut most) = (0, 0, 0);
    for (at, lookup) in lookups.iter().enumerate() {
        let (shelf, path) = shelves.of(&lookup.key)?;
        if shelf.get(path).await?.is_some() {
            let bytes = lookup.bytes();
            rates.count(lookup, Found::Exact(bytes), bytes);
        } else {
            let found = fall_back(shelves, lookup, &written).await?;
            let seeds: Vec<u64> = lookup
                .chunks
                .iter()
                .map(|chunk| chunk.number as u64)
                .collect();
            let put = shelf.put(path, &seeds, lookup.made_millis).await?;
            rates.count(lookup, found, put.there);
            written.insert(&lookup.key, lookup);
        }
        if at % LOOK_LOOKUPS == 0 {
            let bytes = shelves.chunk_bytes().await?;
            most = bytes.max(most);
            if lookups.len() / 2 < at {
                looked += bytes;
                looks += 1;
            }
        }
    }
    let mean = looked.checked_div(looks);
    let mean = mean.context("the history is too short")?;
    let keys: BTreeSet<&str> = lookups.iter().map(|lookup| lookup.key.as_str()).collect();
    let has_all = keys.len() <= shelves.entries().await?;
    let (room, room_max) = match has_all {
        true => (u64::MAX, u64::MAX),
        false => (mean, most),
    };
    Ok(Served {
        rates,
        room,
        room_max,
    })
}

/// Looks up the newest entry that a fallback key begins; says how much of what is needed it has.
async fn fall_back(
    shelves: &Shelves,
    lookup: &Lookup,
    written: &BTreeMap<&str, &Lookup>,
) -> Result<Found> {
    for start in &lookup.fallbacks {
        let (shelf, path) = shelves.of(start)?;
        let list = shelf.client.list_entries(&shelf.namespace(), path).await?;
        let newest = list.iter().max_by_key(|(_, entry)| entry.written);
        let Some((found, _)) = newest else {
            continue;
        };
        if shelf.get(found).await?.is_none() {
            continue;
        }
        let key = format!("{}/{found}", shelf.client.team());
        let there = written.get(key.as_str());
        let there = there.with_context(|| format!("nobody has put `{key}`"))?;
        let same = lookup.chunks.iter();
        let same = same.filter(|chunk| there.chunks.contains(chunk));
        return Ok(Found::Fallback(same.map(|chunk| chunk.bytes).sum()));
    }
    Ok(Found::Nothing)
}

/// What a cache of this size is called.
fn size_name(budget: u64) -> String {
    match budget {
        u64::MAX => "all".to_owned(),
        budget => format!("{} MiB", budget >> 20),
    }
}

fn document(
    lookups: &[Lookup],
    commits: usize,
    (sizes, rooms): (&[AtSize], &[u64]),
    table: &str,
) -> String {
    let bytes: u64 = lookups.iter().map(Lookup::bytes).sum();
    let room = |(size, &room): (&AtSize, &u64)| {
        let had = match room {
            u64::MAX => "everything".to_owned(),
            room => format!("{} MiB", room >> 20),
        };
        format!("{had} in {}", size_name(size.bytes))
    };
    let rooms: Vec<String> = sizes.iter().zip(rooms).map(room).collect();
    format!(
        "# Hit rates\n\nWritten by `cargo run --release -p benches -- hits --documents docs`.\n\n\
        A history from a seed: {commits} commits, {} lookups of {} MiB in all, by builds of nine projects of three\n\
        teams with branches, lock files that change in 5 % of commits, builds of what was built, and entries that\n\
        nobody asks for again; each looks up its dependencies by the lock file and its objects by the tree, and\n\
        puts what was not there. All chunks that there are have {} MiB. Each team has its own namespace.\n\n\
        In percent of all lookups. *With fallback*: another entry of the same project did, which counts for the part\n\
        of its chunks that are the same. *With chunks*: what of the chunks was there at all, in whatever entries; a\n\
        request counts as soon as one of them was (*any chunk*). It does not have to be sent and stored; of the seconds\n\
        it is what a build would save that made only what is new.\n\n\
        *served* is a real cache server of each size; `all` has room for everything. The others are simulated with room\n\
        for as many bytes of distinct chunks as the server had on the average: {}. The offline optimum is between\n\
        the clairvoyant (for each figure by itself Belady's rule with sizes and costs, or what did better of the others\n\
        that are simulated) and the bound (PFOO-L, of exact hits, with as much room as the server had at most; of the\n\
        rest no such bound is known).\n\n\
        {table}\n![Seconds saved against the size of the cache](hits.svg)\n\n\
        The same for the history of a real repository: [hits-repository.md](hits-repository.md).\n",
        lookups.len(),
        bytes >> 20,
        distinct_bytes(lookups) >> 20,
        rooms.join(", "),
    )
}

fn rows(size: &AtSize) -> Vec<Row> {
    let name = size_name(size.bytes);
    let mut rows = Vec::new();
    let mut all = Counts::default();
    for (eviction, rates) in &size.rates {
        all = rates.all;
        let levels = [
            ("exact", rates.exact),
            ("with fallback keys", rates.with_fallbacks),
            ("with chunks", rates.with_chunks),
        ];
        for (level, counts) in levels {
            rows.extend(of_measures(
                &format!("{name}, {eviction}, {level}"),
                counts,
                all,
            ));
        }
    }
    rows.extend(of_measures(
        &format!("{name}, bound, exact"),
        size.bound,
        all,
    ));
    rows
}

fn of_measures(what: &str, counts: Counts, all: Counts) -> impl Iterator<Item = Row> {
    let measures = [
        ("requests", Measure::Requests, ""),
        ("bytes", Measure::Bytes, ""),
        ("seconds", Measure::Millis, " ms"),
    ];
    measures.into_iter().map(move |(name, measure, unit)| {
        let (part, whole) = (counts.of(measure), all.of(measure));
        Row {
            name: format!("hits, {what}: {name}"),
            value: percent(part, whole),
            unit: "%",
            ceiling: None,
            ratio: None,
            note: format!("{part} of {whole}{unit}"),
        }
    })
}
