//! Reports: finds the files that the build's test tools wrote, reads them, and brings what they say to the
//! cache.

mod reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use ::report::{DISCOVERY_VARIABLE, PATTERN_VARIABLE, Published, ReportStatus, is_enabled};
use cache::{client::CacheClient, upload::upload_blob};
use protocol::{
    message::cache::keys,
    report_group::{ReportRef, ReportSpec},
    snapshot::Snapshot,
};

use self::reading::Reading;
use super::{Work, save::root_of, scan::holds};
use crate::{
    fault::{Fault, blocking},
    ground::Ground,
    patterns::rooted,
};

/// What became of the reports of a unit.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Those that are kept now.
    pub(super) reports: Vec<ReportRef>,
    /// What the build's author has to mend; `None`: nothing.
    pub(super) problem: Option<String>,
}

/// Whether the variables that commands left say that reports are to be discovered.
pub(super) fn are_discovered(variables: &BTreeMap<String, Vec<u8>>) -> bool {
    is_enabled(text(variables, DISCOVERY_VARIABLE).as_deref())
}

/// The task of a `build-fanout` that an attempt belongs to; `None`: it belongs to none.
fn shard_of(variables: &BTreeMap<String, String>) -> Option<String> {
    let identifier = variables.get("CODEBUILD_BATCH_BUILD_IDENTIFIER")?;
    let is_shard = variables.contains_key(protocol::variable::SHARD_INDEX);
    is_shard.then(|| identifier.clone())
}

fn text(variables: &BTreeMap<String, Vec<u8>>, name: &str) -> Option<String> {
    let value = variables.get(name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Collects the reports that the buildspec names, and those that are discovered.
///
/// # Errors
///
/// If the farm fails. What files hold or that they are missing is a problem of the build.
pub(super) async fn collect(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    specs: &[ReportSpec],
) -> Result<Collected, Fault> {
    let variables = work.variables(snapshot);
    let one = |text: &String| rooted(text, &variables, ground.root_text());
    let specs = specs.iter().map(|spec| ReportSpec {
        group: one(&spec.group),
        format: spec.format.clone(),
        files: spec.files.iter().map(one).collect(),
        base_directory: spec.base_directory.as_ref().map(one),
        discard_paths: spec.discard_paths,
    });
    let reading = Reading {
        root: root_of(work, ground)?,
        project: work.assignment.project.to_string(),
        shard: shard_of(&work.assignment.variables),
        specs: specs.collect(),
        discovers: are_discovered(&variables),
        pattern: text(&variables, PATTERN_VARIABLE).filter(|pattern| !pattern.trim().is_empty()),
        taken: BTreeSet::new(),
        problems: Vec::new(),
        published: Vec::new(),
    };
    let is_discovering = reading.discovers;
    let read = blocking("read the reports", move || {
        Ok::<_, Infallible>(reading.run())
    })
    .await?;
    let mut collected = Collected::default();
    if !read.problems.is_empty() {
        let problems = read.problems.join(" ");
        collected.problem = Some(format!("Error in UPLOAD_ARTIFACTS phase: {problems}"));
    }
    let mut discovered = read.published.iter().filter(|of| of.is_discovered);
    if is_discovering && discovered.next().is_none() {
        work.say("No matching auto-discover report paths found")
            .await?;
    }
    for published in read.published {
        collected.reports.extend(keep(work, &published).await?);
    }
    if !collected.reports.is_empty() {
        let job = (work.assignment.job.build, work.assignment.unit);
        let key = keys::reports(job.0, job.1, work.assignment.attempt);
        let blobs = collected
            .reports
            .iter()
            .map(|report| report.content.clone());
        work.put_entry(key, (blobs.collect(), Vec::new(), Vec::new()), true)
            .await?;
    }
    Ok(collected)
}

/// Brings a report to the cache, and says so. One that holds a secret is not kept.
async fn keep(work: &Work<'_>, published: &Published) -> Result<Option<ReportRef>, Fault> {
    let bytes = published.encode();
    let secrets = work.secrets.as_ref();
    if let Some(variable) = secrets.and_then(|secrets| secrets.patterns().find(&bytes)) {
        let group = &published.group;
        work.say(&format!("Report {group} is not kept: {}", holds(variable)))
            .await?;
        return Ok(None);
    }
    let request = async |client: CacheClient| upload_blob(&client, bytes.clone()).await;
    let content = work.cache.with("store a report", request).await?;
    let summary = published.report.summary();
    let found = if published.is_discovered {
        "Discovered"
    } else {
        "Uploaded"
    };
    let files = published.files.len();
    let group = &published.group;
    if published.status == ReportStatus::Incomplete {
        work.say(&format!(
            "Report {group} is incomplete: report files not found in build"
        ))
        .await?;
    }
    work.say(&format!(
        "{found} report {group} from {files} file(s): {summary}"
    ))
    .await?;
    Ok(Some(ReportRef {
        group: published.group.clone(),
        format: published.format.to_string(),
        summary,
        content,
    }))
}
