//! What more workers bring: a batch of tasks that wait rather than compute, on one worker and on three.

use anyhow::{Context as _, Result, ensure};
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};

use crate::{
    clock::{median, spread},
    report::Row,
};

/// How much of one worker's time three may take: a third, and what a unit costs besides its commands.
const CEILING: f64 = 0.40;

/// Three roots, and three tasks that need the first of them.
const BUILDSPEC: &str = "
version: 0.2
batch:
  build-graph:
    - identifier: root_a
    - identifier: root_b
    - identifier: root_c
    - {identifier: leaf_a, depend-on: [root_a]}
    - {identifier: leaf_b, depend-on: [root_a]}
    - {identifier: leaf_c, depend-on: [root_a]}
phases:
  build: {commands: [sleep 3]}
";

/// Measures it.
///
/// # Errors
///
/// If a farm cannot be started or a build fails.
pub(crate) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let farm_of = |workers| {
        Farm::start(FarmPlan {
            workers,
            ..FarmPlan::default()
        })
    };
    let (one, three) = (farm_of(1), farm_of(3));
    let source = tempfile::tempdir()?;
    project::write_buildspec(source.path(), BUILDSPEC);
    let (mut alone, mut together, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..pairs {
        let on_one = seconds(&one, source.path())?;
        let on_three = seconds(&three, source.path())?;
        ratios.push(on_three / on_one);
        alone.push(on_one);
        together.push(on_three);
    }
    let seconds = |name: &str, values: &[f64]| Row {
        name: format!("3 tasks, then 3 more, {name}"),
        value: median(values.to_vec()),
        unit: "s",
        ceiling: None,
        ratio: None,
        note: match values.len() {
            0 | 1 => String::new(),
            _ => format!("spread {:.2}", spread(values)),
        },
    };
    Ok(vec![
        seconds("one worker", &alone),
        seconds("three workers", &together),
        Row {
            name: "three workers against one".to_owned(),
            value: median(ratios),
            unit: "x",
            ceiling: Some(CEILING),
            ratio: None,
            note: "each task waits 3 s".to_owned(),
        },
    ])
}

/// From submission to end, in seconds.
fn seconds(farm: &Farm, source: &std::path::Path) -> Result<f64> {
    let build = farm.submit(source, &["--project", "bench", "--batch"]);
    let summary = farm.wait_for_end(&build)["summary"].clone();
    ensure!(
        summary["status"]["ENDED"] == "SUCCEEDED",
        "the build failed: {summary}"
    );
    let moment = |name: &str| summary[name].as_f64().context("a moment is a number");
    Ok((moment("ended")? - moment("submitted")?) / 1e3)
}
