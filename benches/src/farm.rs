//! What a farm adds to a build: four phases of `true`, and the upload of a tree.

use std::{
    fs::{self, File},
    io::Write as _,
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
/// How often an acknowledged build has to reach the disk: a lease and a result for each of six jobs, the
/// submission and the end.
const SYNCS: u32 = 14;

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
        rows.push(overhead(isolation, ceiling, pairs)?);
    }
    let syncs: Vec<f64> = (0..pairs).map(|_| synced_writes()).collect::<Result<_>>()?;
    rows.push(Row {
        name: format!("{SYNCS} small synced writes"),
        value: median(syncs.clone()),
        unit: "ms",
        ceiling: None,
        ratio: None,
        note: format!("spread {:.2}", spread(&syncs)),
    });
    rows.extend(uploads()?);
    Ok(rows)
}

/// From submission to end of a build that does nothing, against the same commands in a shell.
fn overhead(isolation: &'static str, ceiling: f64, pairs: u32) -> Result<Row> {
    let farm = Farm::start(FarmPlan {
        isolation: Some(isolation),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir()?;
    project::write_buildspec(source.path(), BUILDSPEC);
    let (mut builds, mut shells, mut ratios, mut in_syncs) = (vec![], vec![], vec![], vec![]);
    // The first build unpacks and connects what the others find.
    for pair in 0..=pairs {
        let build = farm.submit(source.path(), &["--project", "bench"]);
        let summary = farm.wait_for_end(&build)["summary"].clone();
        ensure!(
            summary["status"]["ENDED"] == "SUCCEEDED",
            "the build failed: {summary}"
        );
        let moment = |name: &str| summary[name].as_f64().context("a moment is a number");
        let took = moment("ended")? - moment("submitted")?;
        let (shell, status) = time(|| {
            Command::new("sh")
                .args(["-c", "true; true; true; true"])
                .status()
        });
        ensure!(status?.success(), "the shell failed");
        if pair == 0 {
            continue;
        }
        builds.push(took);
        shells.push(millis(shell));
        ratios.push(took / millis(shell));
        in_syncs.push(took / synced_writes()?);
    }
    Ok(Row {
        name: format!("submit to end, 4 x `true`, {isolation}"),
        value: median(builds),
        unit: "ms",
        ceiling: Some(ceiling),
        ratio: Some(median(ratios)),
        note: format!(
            "x the four in one sh (spread {:.2}); {:.1} x {SYNCS} synced writes",
            spread(&shells),
            median(in_syncs),
        ),
    })
}

/// How long the synced writes take that a build cannot do without, in milliseconds.
fn synced_writes() -> Result<f64> {
    let mut file = tempfile::tempfile_in(".")?;
    let (took, written) = time(|| -> Result<()> {
        for _ in 0..SYNCS {
            file.write_all(&[1; 256])?;
            file.sync_data()?;
        }
        Ok(())
    });
    written?;
    Ok(millis(took))
}

/// The whole command `grange build --detach` on a tree of many files: the first time, and again.
fn uploads() -> Result<Vec<Row>> {
    let farm = Farm::start(FarmPlan {
        workers: 0,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir()?;
    project::write_buildspec(source.path(), BUILDSPEC);
    write_tree(source.path())?;
    let (walk, files) = time(|| walk(source.path()));
    ensure!(files? > FILES, "the tree was not written");
    let mut rows = Vec::new();
    for name in ["first", "second"] {
        let (took, build) = time(|| farm.submit(source.path(), &["--project", "bench"]));
        ensure!(!build.is_empty(), "the build was not taken");
        rows.push(Row {
            name: format!("upload of {FILES} files, {name} time"),
            value: millis(took),
            unit: "ms",
            ceiling: None,
            ratio: Some(took.as_secs_f64() / walk.as_secs_f64()),
            note: "x a stat walk of the tree".to_owned(),
        });
    }
    Ok(rows)
}

/// Writes files of a few kilobytes that are all different.
fn write_tree(root: &Path) -> Result<()> {
    for index in 0..FILES {
        let directory = root.join(format!("d{}", index / 100));
        fs::create_dir_all(&directory)?;
        let mut file = File::create(directory.join(format!("f{index}")))?;
        for line in 0..(index % 97) {
            writeln!(file, "{index} {line} {}", index * 7919 + line * 104_729)?;
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
