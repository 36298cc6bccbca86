//! Eviction under load: what the files take, whether anything that is held is lost, how much of the budget
//! is in use, how fast is written beside a cache that has room, and how often is found what is looked up.

mod load;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use cache::{
    eviction::{Access, Lru, Measure, Policy, Queues, Tally, bound, clairvoyant, replay},
    hits::percent,
};

pub(crate) use self::load::{Held, Load, Wrote, hold, write};
use super::process::{self, CachePlan, Process, Role};
use crate::{
    clock::{median, spread},
    report::Row,
};

/// What the store may take, in bytes.
const BUDGET: u64 = 1_000_000_000;
/// How much is written in a segment, by two processes. There are three more than pairs, ten as a rule: two
/// fill the store, the last one is not compared.
const SEGMENT_BYTES: u64 = 1_000_000_000;
/// How much is written to a cache that has room, to compare.
const FREE_BYTES: u64 = 250_000_000;
/// After so many segments the store is full.
const FULL_AFTER: u64 = 2;
/// How many builds have holds, how long these last, and how often they are renewed.
const BUILDS: u64 = 32;
const HOLD: Duration = Duration::from_secs(8);
const RENEW: Duration = Duration::from_millis(500);
/// How often it is looked what the files take.
const LOOK: Duration = Duration::from_millis(10);
/// What share of the budget is to be in use.
const LIVE_SHARE: f64 = 60.0;

/// Measures all of it; the speed in so many pairs.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(crate) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    process::found(farm)?;
    let (_server, address) = serve(farm, "cache", BUDGET)?;
    let until = farm.join("enough");
    let mut builds = Process::start(&Role::Entries(Load::Hold {
        farm: farm.to_owned(),
        address,
        builds: BUILDS,
        renew_millis: u64::try_from(RENEW.as_millis())?,
        hold_millis: u64::try_from(HOLD.as_millis())?,
        until: until.clone(),
    }))?;
    let store = farm.join("cache");
    let is_over = AtomicBool::new(false);
    let (looked, speeds, uses, refused) = std::thread::scope(|threads| {
        let looks = threads.spawn(|| look(&store, &is_over));
        let written = write_all((farm, address), pairs);
        is_over.store(true, Ordering::Relaxed);
        let looked = looks.join().expect("looking does not panic");
        let (speeds, uses, refused) = written?;
        anyhow::Ok((looked, speeds, uses, refused))
    })?;
    fs::write(&until, "")?;
    let held: Held = builds.hear()?;
    let mut rows = of_the_disk(&looked, &held, refused);
    rows.extend(of_the_speed(&speeds));
    rows.extend(of_the_hits(uses, &held));
    Ok(rows)
}

fn serve(farm: &Path, name: &str, budget: u64) -> Result<(Process, SocketAddr)> {
    let plan = CachePlan {
        farm: farm.to_owned(),
        directory: farm.join(name),
        budget,
    };
    let hold_millis = u64::try_from(HOLD.as_millis())?;
    let mut server = Process::start(&Role::ShortHolds { plan, hold_millis })?;
    let address = server.hear()?;
    Ok((server, address))
}

/// Speeds with eviction and without, in MB/s, in pairs; all uses; how often was refused.
type Written = (Vec<(f64, f64)>, Vec<load::Use>, u64);

fn write_all((farm, address): (&Path, SocketAddr), pairs: u32) -> Result<Written> {
    let (mut speeds, mut uses, mut refused) = (Vec::new(), Vec::new(), 0);
    for segment in 0..=FULL_AFTER + u64::from(pairs) {
        let (speed, wrote) = write_segment((farm, address), segment, SEGMENT_BYTES)?;
        for wrote in wrote {
            refused += wrote.refused;
            uses.extend(wrote.uses);
        }
        if segment < FULL_AFTER || pairs as usize <= speeds.len() {
            continue;
        }
        let free = {
            let (_server, address) = serve(farm, "free", u64::MAX)?;
            write_segment((farm, address), segment, FREE_BYTES)?.0
        };
        fs::remove_dir_all(farm.join("free"))?;
        speeds.push((speed, free));
    }
    uses.sort_by_key(|one| one.at);
    Ok((speeds, uses, refused))
}

fn write_segment(
    (farm, address): (&Path, SocketAddr),
    segment: u64,
    bytes: u64,
) -> Result<(f64, Vec<Wrote>)> {
    let writers = [0, 1].map(|writer| {
        Process::start(&Role::Entries(Load::Write {
            farm: farm.to_owned(),
            address,
            seed: 2 * segment + writer,
            bytes: bytes / 2,
        }))
    });
    let mut all = Vec::new();
    for writer in writers {
        all.push(writer?.hear::<Wrote>()?);
    }
    let speed: f64 = all
        .iter()
        .map(|wrote| megabytes(wrote.bytes) / wrote.seconds)
        .sum();
    Ok((speed, all))
}

/// What the files took.
#[derive(Debug, Default)]
struct Looked {
    looks: u64,
    most: u64,
    over: u64,
}

fn look(store: &Path, is_over: &AtomicBool) -> Looked {
    let mut looked = Looked::default();
    while !is_over.load(Ordering::Relaxed) {
        let used = disk_usage(store);
        looked.looks += 1;
        looked.most = looked.most.max(used);
        looked.over += u64::from(BUDGET < used);
        std::thread::sleep(LOOK);
    }
    looked
}

/// What a directory and all in it takes, in bytes, as `du` counts; files come and go meanwhile.
fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| disk_usage(&entry.path())).sum::<u64>()
}

fn row(name: &str, (value, unit): (f64, &'static str), ceiling: Option<f64>, note: String) -> Row {
    Row {
        name: name.to_owned(),
        value,
        unit,
        ceiling,
        ratio: None,
        note,
    }
}

fn of_the_disk(looked: &Looked, held: &Held, refused: u64) -> Vec<Row> {
    let live: Vec<f64> = full(held)
        .iter()
        .map(|&live| percent(live, BUDGET))
        .collect();
    let least = live.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0);
    vec![
        row(
            "evict: du at most, of the budget",
            (percent(looked.most, BUDGET), "%"),
            Some(100.0),
            format!("{} looks, {} over", looked.looks, looked.over),
        ),
        row(
            "evict: held and lost",
            (megabytes(held.lost * 1_000_000), ""),
            Some(0.0),
            format!(
                "{BUILDS} builds, renewed {} times ({} of these too late), at most {} ms apart, holds of {} ms",
                held.renewals,
                held.late,
                held.longest_millis,
                HOLD.as_millis()
            ),
        ),
        row(
            "evict: live, the least",
            (least, "%"),
            Some(LIVE_SHARE),
            format!("of the budget; {} samples since it was full", live.len()),
        ),
        row(
            "evict: live, median",
            (if live.is_empty() { 0.0 } else { median(live) }, "%"),
            Some(LIVE_SHARE),
            format!("of the budget; writes were refused {refused} times"),
        ),
    ]
}

/// What the store had since it had enough for the first time.
fn full(held: &Held) -> &[u64] {
    let enough = BUDGET / 100 * 64;
    let first = held.live.iter().position(|&live| enough <= live);
    first.map_or(&[], |first| &held.live[first..])
}

fn of_the_speed(speeds: &[(f64, f64)]) -> Vec<Row> {
    if speeds.is_empty() {
        return Vec::new();
    }
    let free: Vec<f64> = speeds.iter().map(|pair| pair.1).collect();
    let apart = if free.len() < 2 { 1.0 } else { spread(&free) };
    let ratios = speeds.iter().map(|(evicting, free)| evicting / free);
    vec![Row {
        ratio: Some(median(ratios.collect())),
        ..row(
            "evict: new bytes written",
            (median(speeds.iter().map(|pair| pair.0).collect()), "MB/s"),
            None,
            format!(
                "of a cache with room: {:.0} MB/s, {apart:.2} apart; {} pairs",
                median(free),
                speeds.len()
            ),
        )
    }]
}

fn of_the_hits(uses: Vec<load::Use>, held: &Held) -> Vec<Row> {
    let live = full(held);
    let mean = live.iter().sum::<u64>() / (live.len() as u64).max(1);
    // What builds hold is no place for others.
    let capacity = mean.saturating_sub(BUILDS * (2 << 20));
    let access = |one: &load::Use| Access {
        key: one.key,
        worth: load::worth(one.key),
    };
    let trace: Vec<Access> = uses.iter().map(access).collect();
    let mut served = Tally::default();
    for one in &uses {
        served.count(load::worth(one.key), one.is_hit);
    }
    let simulated = |policy: &mut dyn Policy<u64>| replay(&trace, capacity, policy);
    let tallies = [
        ("served", served),
        ("simulated", simulated(&mut Queues::default())),
        ("LRU, simulated", simulated(&mut Lru::default())),
        (
            "clairvoyant",
            clairvoyant(&trace, capacity, Measure::Millis),
        ),
    ];
    let mut rows: Vec<Row> = tallies
        .iter()
        .map(|(name, tally)| {
            row(
                &format!("evict: time saved, {name}"),
                (percent(tally.saved_millis, tally.millis), "%"),
                None,
                format!(
                    "{:.1} % of {} requests, {:.1} % of bytes, in {:.0} MB",
                    percent(tally.hits, tally.requests),
                    tally.requests,
                    percent(tally.hit_bytes, tally.bytes),
                    megabytes(capacity)
                ),
            )
        })
        .collect();
    let most = bound(&trace, capacity, Measure::Millis);
    rows.push(row(
        "evict: time saved, bound",
        (percent(most, served.millis), "%"),
        None,
        "PFOO-L: no eviction can surpass it".to_owned(),
    ));
    rows
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody reads the sixteenth digit of a size"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Plays a client.
///
/// # Errors
///
/// If the cache fails.
pub(crate) async fn play(load: Load) -> Result<()> {
    match load {
        Load::Write {
            farm,
            address,
            seed,
            bytes,
        } => crate::report::say(&write((farm, address), seed, bytes).await?),
        Load::Hold {
            farm,
            address,
            builds,
            renew_millis,
            hold_millis,
            until,
        } => {
            ensure!(0 < builds, "somebody has to hold something");
            let renew = Duration::from_millis(renew_millis);
            let times = (renew, Duration::from_millis(hold_millis));
            crate::report::say(&hold((farm, address), builds, times, until).await?)
        }
    }
}
