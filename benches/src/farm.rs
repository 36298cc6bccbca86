//! What a farm adds to a build: four phases of `true`, and the upload of a tree.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use crate::{
    clock::{median, millis, spread, time},
    report::Row,
};

/// What a build of four phases of `true` may add, in milliseconds, by isolation level.
const CEILINGS: [(&str, f64); 2] = [("namespace", 250.0), ("host", 150.0)];
/// How many files the uploaded tree has.
const FILES: usize = 10_000;
/// What is synced for a build: facts, logs, and chunks with their entries.
const SYNCS: [&str; 3] = [
    "grange_journal_syncs_total",
    "grange_log_syncs_total",
    "grange_cache_syncs_total",
];
/// How many bytes a group of facts has, about.
const GROUP_BYTES: usize = 512;

const BUILDSPEC: &str = "
version: 0.2
phases:
  install: {commands: ['true']}
  pre_build: {commands: ['true']}
  build: {commands: ['true']}
  post_build: {commands: ['true']}
";

/// Measures all of it.
///
/// # Errors
///
/// If a farm cannot be started or a build fails.
pub(crate) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (isolation, ceiling) in CEILINGS {
        rows.extend(overhead(isolation, ceiling, pairs)?);
    }
    rows.extend(uploads(pairs)?);
    Ok(rows)
}

/// From submission to end of a build that does nothing, against the same commands in a shell, and
/// against the synced writes that it needs, in the same directory.
fn overhead(isolation: &'static str, ceiling: f64, pairs: u32) -> Result<Vec<Row>> {
    let (coordinator, cache) = (free_address()?, free_address()?);
    let farm = Farm::start(FarmPlan {
        isolation: Some(isolation),
        settings: format!(
            "[coordinator]\nmetrics_listen = \"{coordinator}\"\n\
             [cache]\nmetrics_listen = \"{cache}\"\n"
        ),
        ..FarmPlan::default()
    });
    let synced = || -> Result<u64> { Ok(syncs(coordinator)? + syncs(cache)?) };
    let source = tempfile::tempdir()?;
    project::write_buildspec(source.path(), BUILDSPEC);
    let (mut builds, mut shells, mut floors) = (vec![], vec![], vec![]);
    let mut needed = 0;
    // The first build unpacks and connects what the others find.
    for pair in 0..=pairs {
        let before = synced()?;
        let build = farm.submit(source.path(), &["--project", "bench"]);
        let summary = farm.wait_for_end(&build)["summary"].clone();
        ensure!(
            summary["status"]["ENDED"] == "SUCCEEDED",
            "the build failed: {summary}"
        );
        let moment = |name: &str| summary[name].as_f64().context("a moment is a number");
        let (shell, status) = time(|| {
            Command::new("sh")
                .args(["-c", "true; true; true; true"])
                .status()
        });
        ensure!(status?.success(), "the shell failed");
        if pair == 0 {
            continue;
        }
        needed = synced()? - before;
        builds.push(moment("ended")? - moment("submitted")?);
        shells.push(millis(shell));
        floors.push(synced_writes(farm.directory(), needed)?);
    }
    let against = |floor: &[f64]| median(builds.iter().zip(floor).map(|(a, b)| a / b).collect());
    let row = |name: String, floor: &[f64], what: String| Row {
        name,
        value: median(builds.clone()),
        unit: "ms",
        ceiling: Some(ceiling),
        ratio: Some(against(floor)),
        note: format!(
            "x {what} ({:.2} ms, spread {:.2})",
            median(floor.to_vec()),
            spread(floor)
        ),
    };
    Ok(vec![
        row(
            format!("submit to end, 4 x `true`, {isolation}"),
            &shells,
            "the four in one sh".to_owned(),
        ),
        row(
            format!("the same against its syncs, {isolation}"),
            &floors,
            format!("the {needed} synced writes that it needs"),
        ),
    ])
}

/// An address on which nobody listens.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// How often a service has synced, as its metrics say.
fn syncs(address: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let counts = text.lines().filter_map(|line| line.split_once(' '));
    let counts = counts.filter(|(name, _)| SYNCS.contains(name));
    Ok(counts
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum())
}

/// How long so many synced writes take, in milliseconds.
fn synced_writes(directory: &Path, count: u64) -> Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let (took, written) = time(|| -> Result<()> {
        for _ in 0..count {
            file.write_all(&[1; GROUP_BYTES])?;
            file.sync_data()?;
        }
        Ok(())
    });
    written?;
    Ok(millis(took))
}

/// The whole command `grange build --detach` on a tree of many files: the first time, and again.
fn uploads(pairs: u32) -> Result<Vec<Row>> {
    let (mut walks, mut first, mut second) = (vec![], vec![], vec![]);
    for pair in 0..pairs {
        let farm = Farm::start(FarmPlan {
            workers: 0,
            ..FarmPlan::default()
        });
        let source = tempfile::tempdir()?;
        project::write_buildspec(source.path(), BUILDSPEC);
        write_tree(source.path(), pair)?;
        let (walk, files) = time(|| walk(source.path()));
        ensure!(files? > FILES, "the tree was not written");
        walks.push(millis(walk));
        for times in [&mut first, &mut second] {
            let (took, build) = time(|| farm.submit(source.path(), &["--project", "bench"]));
            ensure!(!build.is_empty(), "the build was not taken");
            times.push(millis(took));
        }
    }
    let row = |name: &str, times: Vec<f64>| Row {
        name: format!("upload of {FILES} files, {name} time"),
        ratio: Some(median(
            times.iter().zip(&walks).map(|(a, b)| a / b).collect(),
        )),
        value: median(times),
        unit: "ms",
        ceiling: None,
        note: format!(
            "x a stat walk of the tree ({:.2} ms, spread {:.2})",
            median(walks.clone()),
            spread(&walks)
        ),
    };
    Ok(vec![row("first", first), row("second", second)])
}

/// Writes files of a few kilobytes that are all different, and different for each `seed`.
fn write_tree(root: &Path, seed: u32) -> Result<()> {
    for index in 0..FILES {
        let directory = root.join(format!("d{}", index / 100));
        fs::create_dir_all(&directory)?;
        let mut file = File::create(directory.join(format!("f{index}")))?;
        for line in 0..(index % 97) {
            writeln!(
                file,
                "{seed} {index} {line} {}",
                index * 7919 + line * 104_729
            )?;
        }
    }
    Ok(())
}

/// Looks at every file of a tree, and gives how many there are.
fn walk(directory: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            files += walk(&entry.path())?;
        } else {
            files += 1;
        }
    }
    Ok(files)
}
