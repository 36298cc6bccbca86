//! What reading and planning a buildspec takes, beside reading the same bytes with the YAML library alone.

use std::{fs, path::Path, time::Duration};

use ::buildspec::{PlanRequest, parse, plan};
use anyhow::{Context as _, Result, ensure};

use crate::{
    clock::{median, millis, spread, time},
    report::Row,
};

/// How often a text is read in one measurement, so that it takes long enough to be measured.
const ROUNDS: u32 = 50;
/// How many bytes the stand-in for a large real file has: those of the largest that was found.
const LARGE_BYTES: usize = 15_000;

/// Measures all of it. `corpus` is a directory of real buildspecs, of which the largest is taken.
///
/// # Errors
///
/// If a file cannot be read, or is no buildspec.
pub(crate) fn measure(pairs: u32, corpus: Option<&Path>) -> Result<Vec<Row>> {
    let (name, text) = match corpus {
        Some(directory) => largest(directory)?,
        None => ("a stand-in".to_owned(), stand_in()),
    };
    let mut rows = measure_text(pairs, (&format!("largest file ({name})"), &text), false)?;
    rows.extend(measure_text(pairs, ("matrix of 1,000", &matrix()), true)?);
    Ok(rows)
}

/// The largest file of a directory that is a buildspec.
fn largest(directory: &Path) -> Result<(String, String)> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("failed to look into `{}`", directory.display()))?;
    let mut found: Option<(String, String)> = None;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        let is_larger = found
            .as_ref()
            .is_none_or(|(_, other)| other.len() < text.len());
        if name.ends_with(".yml") && is_larger && parse(&text).spec.is_some() {
            found = Some((name, text));
        }
    }
    found.with_context(|| format!("no buildspec lies in `{}`", directory.display()))
}

/// A file as large as the largest, of tasks that say what they run on, as that has them.
fn stand_in() -> String {
    let mut text =
        "version: 0.2\nphases: {build: {commands: [make]}}\nbatch:\n  build-list:\n".to_owned();
    for task in 0.. {
        if LARGE_BYTES <= text.len() {
            break;
        }
        text += &format!(
            "    - identifier: ubuntu_x86_64_task_{task}\n      env:\n        type: LINUX_CONTAINER\n        \
             privileged-mode: true\n        compute-type: BUILD_GENERAL1_SMALL\n        \
             image: registry.example/test-images:ubuntu-22.04_clang-14x_latest\n        variables:\n          \
             COMPILER_NUMBER: {task}\n"
        );
    }
    text
}

/// A matrix of a thousand tasks.
fn matrix() -> String {
    let values: Vec<String> = (0..10).map(|value| format!("value-{value}")).collect();
    let values = values.join(", ");
    format!(
        "version: 0.2\nphases:\n  install: {{commands: [./install]}}\n  build: {{commands: [./build, ./test]}}\n\
         batch:\n  build-matrix:\n    dynamic:\n      env:\n        variables:\n          A: [{values}]\n          \
         B: [{values}]\n          C: [{values}]\n"
    )
}

/// Measures one text, the YAML library first in each pair.
fn measure_text(pairs: u32, (name, text): (&str, &str), is_batch: bool) -> Result<Vec<Row>> {
    let (mut yaml, mut parsed, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let micros = |took: Duration, rounds: u32| millis(took) * 1e3 / f64::from(rounds);
    // A thousand tasks are planned for much longer than they are read.
    let plan_rounds = if is_batch { ROUNDS / 10 } else { ROUNDS };
    let request = request(text, is_batch)?;
    for _ in 0..pairs {
        let (took, events) = time(|| (0..ROUNDS).map(|_| events(text)).sum::<usize>());
        ensure!(events > 0, "{name} is no YAML");
        yaml.push(micros(took, ROUNDS));
        let (took, specs) = time(|| (0..ROUNDS).filter(|_| parse(text).spec.is_some()).count());
        ensure!(specs == ROUNDS as usize, "{name} is no buildspec");
        parsed.push(micros(took, ROUNDS));
        let (took, jobs) = time(|| {
            (0..plan_rounds)
                .map(|_| jobs(text, &request))
                .sum::<usize>()
        });
        ensure!(jobs > 0, "{name} has no jobs");
        both.push(micros(took, plan_rounds));
    }
    let note = format!(
        "of the YAML library alone: {:.0} us for {} bytes, spread {:.2}",
        median(yaml.clone()),
        text.len(),
        spread(&yaml)
    );
    let row = |what: &str, values: &[f64]| {
        let ratios = values.iter().zip(&yaml).map(|(value, floor)| value / floor);
        Row {
            name: format!("{what}, {name}"),
            value: median(values.to_vec()),
            unit: "us",
            ceiling: None,
            ratio: Some(median(ratios.collect())),
            note: note.clone(),
        }
    };
    Ok(vec![row("parse", &parsed), row("parse and plan", &both)])
}

/// How many events the YAML library finds.
fn events(text: &str) -> usize {
    let parser = saphyr_parser::Parser::new_from_str(text);
    parser.take_while(Result::is_ok).count()
}

/// What is to be planned of a text. In place of the buildspecs that its tasks have of their own, none of which
/// are here, the tasks have its own phases, or empty ones.
fn request(text: &str, is_batch: bool) -> Result<PlanRequest> {
    let spec = parse(text).spec.context("the text is no buildspec")?;
    let batch = is_batch || spec.phases.is_none();
    let own = spec.batch.iter().flat_map(|batch| batch.tasks.buildspecs());
    let own = own.map(|path| {
        let mut own = spec.clone();
        own.phases.get_or_insert_default();
        (path, own)
    });
    Ok(PlanRequest {
        batch,
        buildspecs: own.collect(),
        ..PlanRequest::default()
    })
}

/// How many jobs a text becomes; none after an error.
fn jobs(text: &str, request: &PlanRequest) -> usize {
    let graph = parse(text).spec.and_then(|spec| plan(&spec, request).ok());
    graph.map_or(0, |graph| graph.jobs.len())
}
