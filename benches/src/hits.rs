//! Hit rates: the history of commits of several projects, replayed through a real cache server with caches
//! of several sizes; how often, for how many bytes and seconds, an entry is there under its own key, under
//! another one that will do, or at least its chunks.

mod chart;
mod history;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use cache::eviction::{
    Access, GreedyDual, Lru, Measure, Policy, Queues, S3Fifo, Tally, Worth, bound, clairvoyant,
    replay,
};

use self::history::Step;
use crate::{
    cache::{CachePlan, Process, Role, found, runtime, team},
    entries::{Shelf, percent},
    report::Row,
};

/// How large all chunks are, in bytes.
pub(crate) const CHUNK_BYTES: u64 = 256 << 10;
/// How long holds last, in milliseconds: one build after another, each takes less.
const HOLD_MILLIS: u64 = 1_000;
/// The sizes of the caches, in bytes; the last has room for everything.
const BUDGETS: [u64; 5] = [128 << 20, 256 << 20, 512 << 20, 1 << 30, u64::MAX];
/// After so many steps it is looked what the cache has.
const LOOK_STEPS: usize = 25;

/// What came of a history in one cache.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// What the cache may take, in bytes.
    pub(crate) budget: u64,
    /// The bytes of all entries that it had, each with all of its chunks, on the average of the second
    /// half.
    pub(crate) entries_bytes: u64,
    /// Found under their own keys.
    pub(crate) exact: Tally,
    /// How often another entry did, for those that were not.
    pub(crate) fallbacks: u64,
    /// What that saved: the part of the time that is the part of its chunks which are the same.
    pub(crate) fallback_millis: u64,
    /// Of the bytes of entries that were put, those whose chunks were there.
    pub(crate) chunks_there: u64,
    pub(crate) put_bytes: u64,
    /// What simulations save of the time, in percent, with the same bytes of entries: LRU, S3-FIFO, greedy
    /// dual, the chosen eviction, the clairvoyant, the bound.
    pub(crate) simulated: [f64; 6],
}

/// Replays the history for all sizes, and writes the table and the chart to `documents`, if that is given.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(commits: usize, documents: Option<&Path>) -> Result<Vec<Row>> {
    let steps = history::history(7, commits);
    let mut all = Vec::new();
    for budget in BUDGETS {
        all.push(replay_through_server(&steps, budget)?);
    }
    if let Some(directory) = documents {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("hits.md"), chart::table(&steps, &all))?;
        fs::write(directory.join("hits.svg"), chart::curves(&all))?;
    }
    Ok(all.iter().flat_map(rows).collect())
}

fn replay_through_server(steps: &[Step], budget: u64) -> Result<Replayed> {
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
    let mut replayed = runtime()?.block_on(async {
        let shelf = Shelf::dial(farm, address, CHUNK_BYTES).await?;
        play(&shelf, steps, budget).await
    })?;
    let trace: Vec<Access> = steps.iter().map(access).collect();
    replayed.simulated = simulate(&trace, replayed.entries_bytes, replayed.exact.millis);
    Ok(replayed)
}

fn access(step: &Step) -> Access {
    Access {
        key: step.key,
        worth: worth(step),
    }
}

fn worth(step: &Step) -> Worth {
    Worth {
        bytes: step.chunks.len() as u64 * CHUNK_BYTES,
        made_millis: step.made_millis,
    }
}

async fn play(shelf: &Shelf, steps: &[Step], budget: u64) -> Result<Replayed> {
    let mut replayed = Replayed {
        budget,
        entries_bytes: 0,
        exact: Tally::default(),
        fallbacks: 0,
        fallback_millis: 0,
        chunks_there: 0,
        put_bytes: 0,
        simulated: [0.0; 6],
    };
    let mut contents: BTreeMap<String, &[u64]> = BTreeMap::new();
    let (mut looks, mut looked) = (0, 0);
    for (at, step) in steps.iter().enumerate() {
        let path = format!("{}{:x}", step.group(), step.key);
        let is_hit = shelf.get(&path).await?.is_some();
        replayed.exact.count(worth(step), is_hit);
        if !is_hit {
            if let Some(same) = fall_back(shelf, step, &contents).await? {
                replayed.fallbacks += 1;
                let all = step.chunks.len() as u64;
                replayed.fallback_millis += step.made_millis * same / all.max(1);
            }
            let put = shelf.put(&path, &step.chunks, step.made_millis).await?;
            replayed.chunks_there += put.there;
            replayed.put_bytes += worth(step).bytes;
            contents.insert(path, &step.chunks);
        }
        if steps.len() / 2 < at && at % LOOK_STEPS == 0 {
            let list = shelf.client.list_entries(&team().into(), "").await?;
            looked += list.iter().map(|(_, entry)| entry.bytes).sum::<u64>();
            looks += 1;
        }
    }
    replayed.entries_bytes = looked
        .checked_div(looks)
        .context("the history is too short")?;
    Ok(replayed)
}

/// Looks up the newest entry of the same group; gives how many of its chunks are those of the step.
async fn fall_back(
    shelf: &Shelf,
    step: &Step,
    contents: &BTreeMap<String, &[u64]>,
) -> Result<Option<u64>> {
    let list = shelf
        .client
        .list_entries(&team().into(), &step.group())
        .await?;
    let newest = list.iter().max_by_key(|(_, entry)| entry.written);
    let Some((path, _)) = newest else {
        return Ok(None);
    };
    if shelf.get(path).await?.is_none() {
        return Ok(None);
    }
    let there = contents.get(path).copied().unwrap_or_default();
    let same = step.chunks.iter().filter(|chunk| there.contains(chunk));
    Ok(Some(same.count() as u64))
}

fn simulate(trace: &[Access], capacity: u64, millis: u64) -> [f64; 6] {
    let saved = |policy: &mut dyn Policy<u64>| replay(trace, capacity, policy).saved_millis;
    let saved = [
        saved(&mut Lru::default()),
        saved(&mut S3Fifo::default()),
        saved(&mut GreedyDual::default()),
        saved(&mut Queues::default()),
        clairvoyant(trace, capacity, Measure::Millis).saved_millis,
        bound(trace, capacity, Measure::Millis),
    ];
    saved.map(|saved| percent(saved, millis))
}

/// What a cache of this size is called.
pub(crate) fn size_name(budget: u64) -> String {
    match budget {
        u64::MAX => "all".to_owned(),
        budget => format!("{} MiB", budget >> 20),
    }
}

fn rows(replayed: &Replayed) -> Vec<Row> {
    let size = size_name(replayed.budget);
    let exact = &replayed.exact;
    let row = |what: &str, value: f64, note: String| Row {
        name: format!("hits, {size}: {what}"),
        value,
        unit: "%",
        ceiling: None,
        ratio: None,
        note,
    };
    let [lru, fifo, greedy, chosen, clairvoyant, bound] = replayed.simulated;
    vec![
        row(
            "requests, exact",
            percent(exact.hits, exact.requests),
            format!("of {}", exact.requests),
        ),
        row(
            "requests, with fallback keys",
            percent(exact.hits + replayed.fallbacks, exact.requests),
            String::new(),
        ),
        row(
            "bytes, exact",
            percent(exact.hit_bytes, exact.bytes),
            String::new(),
        ),
        row(
            "bytes, with chunks",
            percent(exact.hit_bytes + replayed.chunks_there, exact.bytes),
            format!(
                "{:.1} % of what was put was there",
                percent(replayed.chunks_there, replayed.put_bytes)
            ),
        ),
        row(
            "seconds, exact",
            percent(exact.saved_millis, exact.millis),
            format!(
                "simulated in {} MiB of entries: LRU {lru:.1}, S3-FIFO {fifo:.1}, greedy dual {greedy:.1}, chosen {chosen:.1}, clairvoyant {clairvoyant:.1}, bound {bound:.1}",
                replayed.entries_bytes >> 20
            ),
        ),
        row(
            "seconds, with fallback keys",
            percent(exact.saved_millis + replayed.fallback_millis, exact.millis),
            String::new(),
        ),
    ]
}
