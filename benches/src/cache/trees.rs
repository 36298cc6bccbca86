//! Trees of real builds, put and got by the program that people use: a cold restore beside the same files
//! written from memory, copied, and unpacked from an archive over TLS; a put of what has not changed
//! beside a walk; and what travels after a change.

mod floors;
mod nginx;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::farm::{Farm, FarmPlan};

use self::{
    floors::{Files, copy, stat_walk, update},
    nginx::Nginx,
};
use crate::{
    clock::{median, millis, spread, time},
    report::Row,
};

/// What is put and got, what changes in it, and how many files it has at least.
const KINDS: [(&str, &str, usize); 3] = [
    ("npm", "node_modules", 20_000),
    ("target", "a Rust target directory", 500),
    ("debian", "Debian packages", 2_000),
];
/// What a restore may take, as a multiple of two threads that write the files from memory.
const WRITER_RATIO: f64 = 1.4;
/// What putting an unchanged tree may take, as a multiple of a walk that looks at each entry.
const WALK_RATIO: f64 = 2.0;
/// What may travel after a package changed, in percent of what travelled the first time.
const CHANGE_PERCENT: f64 = 3.0;

/// Measures all trees, with so many pairs for each figure.
///
/// # Errors
///
/// If a tree cannot be fetched, or a farm does not start.
pub(super) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, name, files) in KINDS {
        let trees = fetch(kind)?;
        let tree = Tree {
            name,
            before: trees.join("before"),
            after: trees.join("after"),
        };
        let held = Files::read(&tree.before)?;
        ensure!(files <= held.count(), "{name} has {} files", held.count());
        rows.extend(tree.measure(&held, pairs)?);
    }
    Ok(rows)
}

/// Where the trees of one kind are; fetches them the first time.
fn fetch(kind: &str) -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let into = here.join("../target/trees");
    fs::create_dir_all(&into)?;
    let into = into.canonicalize()?;
    let mut fetch = Command::new(here.join("trees/fetch.sh"));
    fetch.arg(&into).arg(kind).stdout(Stdio::null());
    let status = fetch.status().context("failed to fetch the trees")?;
    ensure!(
        status.success(),
        "the trees of kind {kind} were not fetched"
    );
    Ok(into.join(kind))
}

/// A tree in two states.
struct Tree {
    name: &'static str,
    before: PathBuf,
    after: PathBuf,
}

impl Tree {
    fn measure(&self, held: &Files, pairs: u32) -> Result<Vec<Row>> {
        let farm = Farm::start(FarmPlan {
            workers: 0,
            ..FarmPlan::default()
        });
        let scratch = tempfile::tempdir()?;
        // The directory that changes has to stay the same one, as it does for whoever builds in it.
        let root = scratch.path().join("root");
        copy(&self.before, &root)?;
        let (took, first) = time(|| put(&farm, &root));
        let first = first?;
        let digest = text(&first, "digest")?;
        let mut rows = vec![Row {
            name: format!("{}: first put", self.name),
            value: millis(took),
            unit: "ms",
            ceiling: None,
            ratio: None,
            note: format!(
                "{} files, {:.1} MB; {:.1} MB on the wire, both ways",
                held.count(),
                number(&first, "bytes")? / 1e6,
                wire(&first)? / 1e6
            ),
        }];
        rows.push(self.unchanged(&farm, &root, pairs)?);
        rows.extend(self.restored(&farm, (held, &digest), scratch.path(), pairs)?);
        rows.push(self.changed(&farm, &root, wire(&first)?)?);
        Ok(rows)
    }

    /// Putting what has not changed, beside a walk.
    fn unchanged(&self, farm: &Farm, root: &Path, pairs: u32) -> Result<Row> {
        let (mut puts, mut walks) = (vec![], vec![]);
        let mut moved = 0.0;
        for _ in 0..=pairs {
            settle()?;
            let (took, entries) = time(|| stat_walk(root));
            ensure!(0 < entries?, "nothing was walked");
            walks.push(millis(took));
            settle()?;
            let (took, put) = time(|| put(farm, root));
            let put = put?;
            puts.push(millis(took));
            moved = wire(&put)?;
        }
        Ok(Row {
            name: format!("{}: put again, unchanged", self.name),
            value: median(puts[1..].to_vec()),
            unit: "ms",
            ceiling: Some(WALK_RATIO),
            ratio: Some(ratio(&puts, &walks)),
            note: format!(
                "x a stat walk ({:.1} ms, spread {:.2}); {:.3} MB on the wire",
                median(walks.clone()),
                spread(&walks),
                moved / 1e6
            ),
        })
    }

    /// A cold restore, beside what else brings the files.
    fn restored(
        &self,
        farm: &Farm,
        (held, digest): (&Files, &str),
        scratch: &Path,
        pairs: u32,
    ) -> Result<Vec<Row>> {
        let nginx = Nginx::start(&self.before)?;
        let ways: [(&str, Way<'_>); 4] = [
            ("got", &|at| get(farm, digest, at).map(drop)),
            ("written", &|at| held.write(at)),
            ("copied", &|at| copy(&self.before, at)),
            ("unpacked", &|at| {
                nginx.as_ref().map_or(Ok(()), |nginx| nginx.unpack(at))
            }),
        ];
        let ways = &ways[..3 + usize::from(nginx.is_some())];
        let took = in_turn(ways, scratch, pairs)?;
        let (gets, floors) = took.split_first().context("there are four ways")?;
        let row = |beside: &str, ceiling, floor: &[f64]| Row {
            name: format!("{}: cold restore, beside {beside}", self.name),
            value: median(gets[1..].to_vec()),
            unit: "ms",
            ceiling,
            ratio: Some(ratio(gets, floor)),
            note: format!(
                "x {beside} ({:.0} ms, spread {:.2}); own spread {:.2}",
                median(floor[1..].to_vec()),
                spread(floor),
                spread(gets)
            ),
        };
        let beside = [
            ("two threads from memory", Some(WRITER_RATIO)),
            ("cp -r", Some(1.0)),
            ("curl | tar --zstd -x", None),
        ];
        let rows = beside.into_iter().zip(floors);
        Ok(rows
            .map(|((beside, ceiling), floor)| row(beside, ceiling, floor))
            .collect())
    }

    /// What travels when the tree has changed.
    fn changed(&self, farm: &Farm, root: &Path, first: f64) -> Result<Row> {
        update(root, &self.after)?;
        let (took, put) = time(|| put(farm, root));
        let put = put?;
        Ok(Row {
            name: format!("{}: put after a change", self.name),
            value: 100.0 * wire(&put)? / first,
            unit: "%",
            ceiling: Some(CHANGE_PERCENT),
            ratio: None,
            note: format!(
                "of the first put's bytes on the wire: {:.2} MB in {:.0} ms, {} files not read",
                wire(&put)? / 1e6,
                millis(took),
                number(&put, "files_known")?
            ),
        })
    }
}

/// What brings the files of a tree to a directory that is not there yet.
type Way<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// Goes each way so many times, after once that warms up, into a directory of its name; gives milliseconds for each
/// way. Another goes first each time, and all of them find a disk at rest: nobody waits for what another wrote.
fn in_turn(ways: &[(&str, Way<'_>)], scratch: &Path, pairs: u32) -> Result<Vec<Vec<f64>>> {
    let mut all = vec![vec![]; ways.len()];
    for pair in 0..=pairs as usize {
        let at = scratch.join("restored");
        fs::create_dir(&at)?;
        for turn in 0..ways.len() {
            let way = (pair + turn) % ways.len();
            let (name, bring) = ways[way];
            let into = at.join(name);
            settle()?;
            let (took, brought) = time(|| bring(&into));
            brought?;
            all[way].push(millis(took));
        }
        fs::remove_dir_all(&at)?;
    }
    Ok(all)
}

/// The median of the pairs' ratios, without the first, which warms up.
fn ratio(values: &[f64], floors: &[f64]) -> f64 {
    let pairs = values.iter().zip(floors).skip(1);
    median(pairs.map(|(value, floor)| value / floor).collect())
}

/// Lets the disk come to rest, so that what was written or deleted before is nobody's load.
fn settle() -> Result<()> {
    let status = Command::new("sync").status()?;
    ensure!(status.success(), "the disk does not come to rest");
    Ok(())
}

fn put(farm: &Farm, root: &Path) -> Result<Value> {
    let root = root.to_str().context("the path is text")?;
    let mut said = farm.json(&["cache", "put", root]);
    said.pop().context("put says what it did")
}

fn get(farm: &Farm, digest: &str, target: &Path) -> Result<Value> {
    let target = target.to_str().context("the path is text")?;
    let mut said = farm.json(&["cache", "get", digest, target]);
    said.pop().context("get says what it did")
}

/// What went over the wire, both ways, in bytes.
fn wire(said: &Value) -> Result<f64> {
    Ok(number(said, "wire_sent")? + number(said, "wire_received")?)
}

fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("no {name}"))
}

fn text(said: &Value, name: &str) -> Result<String> {
    let text = said[name].as_str();
    Ok(text.with_context(|| format!("no {name}"))?.to_owned())
}
