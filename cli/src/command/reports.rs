//! `grange reports`: what the tests of a build and their coverage say, and what changed since the build before.

use anyhow::Context as _;
use cache::{client::CacheClient, download::fetch_blob};
use protocol::{
    build::BuildId,
    message::client::{BuildDetail, BuildSummary, ClientReply, ClientRequest, UnitDetail},
    project::BatchReports,
    report_group::ReportRef,
};
use report::{Comparison, PUBLISHED_BYTES_MAX, Published, ReportStatus, compare};

use crate::{
    args::OneBuildArgs,
    command::{Context, read},
    error::CommandError,
    farm::{Farm, unexpected},
    reach::Purpose,
    render,
};

/// How many builds of a project are listed to find the one before.
const LISTED_MAX: u32 = 100;

/// How many builds before are asked for their reports: builds that failed early have none.
const LOOKED_AT_MAX: usize = 10;

/// How the part of a group's name begins that says which shard of a `build-fanout` it is of.
const SHARD: &str = "-BuildFanoutShard";

/// A report, and the same one of the build before.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Whose it is.
    pub(crate) build: BuildId,
    /// The task of a batch that it is of, where the builds of a batch have their own; `None`: the whole build.
    pub(crate) unit: Option<String>,
    /// What it says; of a batch, what all units say together.
    pub(crate) published: Published,
    /// Against which build, as `project#number`, and what changed; `None`: there is none before.
    pub(crate) since: Option<(String, Comparison)>,
}

/// Shows the reports of a build.
///
/// # Errors
///
/// If the farm cannot be reached, does not know the build, or does not have the reports any more.
pub(crate) async fn run(args: &OneBuildArgs, context: &Context) -> Result<(), CommandError> {
    let json = args.read.json;
    context
        .with_farm(&args.read.farm, Purpose::Ask, async |reached| {
            let farm = &reached.farm;
            let detail = read::detail(farm, &args.build).await?;
            if detail.units.iter().all(|unit| unit.reports.is_empty()) {
                render::note("the build has no reports");
                return Ok(());
            }
            let (client, _) = farm.cache().await?;
            let former = match build_before(farm, &detail.summary).await? {
                Some(before) => {
                    let name = format!("{}#{}", before.summary.project, before.summary.number);
                    Some((name, all(&client, &before).await?))
                }
                None => None,
            };
            for Told { unit, published } in all(&client, &detail).await? {
                let since = former.as_ref().and_then(|(name, former)| {
                    let is_same =
                        |told: &&Told| told.unit == unit && told.published.group == published.group;
                    let same = &former.iter().find(is_same)?.published;
                    Some((name.clone(), compare(&same.report, &published.report)?))
                });
                let build = detail.summary.build;
                let shown = Shown {
                    build,
                    unit,
                    published,
                    since,
                };
                render::report(&shown, json)?;
            }
            Ok(())
        })
        .await
}

/// The build of the same project before this one that has reports.
async fn build_before(
    farm: &Farm,
    build: &BuildSummary,
) -> Result<Option<BuildDetail>, CommandError> {
    let request = ClientRequest::Builds {
        project: Some(build.project.clone()),
        limit: LISTED_MAX,
    };
    let mut builds = match farm.ask(&request).await? {
        ClientReply::Builds(builds) => builds,
        other => return Err(unexpected(&other)),
    };
    builds.retain(|other| other.number < build.number && other.team == build.team);
    builds.sort_by_key(|other| std::cmp::Reverse(other.number));
    for other in builds.iter().take(LOOKED_AT_MAX) {
        let detail = read::detail(farm, &other.build.to_string()).await?;
        if detail.units.iter().any(|unit| !unit.reports.is_empty()) {
            return Ok(Some(detail));
        }
    }
    Ok(None)
}

/// A report, and whose it is.
struct Told {
    /// As of [`Shown`].
    unit: Option<String>,
    published: Published,
}

/// The reports of a build: those of its units by group, or one by one where its project wants that.
async fn all(client: &CacheClient, detail: &BuildDetail) -> Result<Vec<Told>, CommandError> {
    let mut told = Vec::new();
    let mode = detail.batch.as_ref().map(|batch| batch.reports);
    if mode == Some(BatchReports::Individual) {
        for unit in &detail.units {
            for report in &unit.reports {
                let published = fetch(client, report).await?;
                let unit = unit.identifier.clone();
                told.push(Told { unit, published });
            }
        }
        return Ok(told);
    }
    let mut all = Vec::new();
    for unit in &detail.units {
        all_of_unit(client, unit, &mut all).await?;
    }
    note_missing(detail, &mut all);
    let whole = |published| Told {
        unit: None,
        published,
    };
    told.extend(all.into_iter().map(whole));
    Ok(told)
}

/// A report that some shards have and others lack is incomplete.
fn note_missing(detail: &BuildDetail, all: &mut [Published]) {
    let shards = || {
        detail
            .units
            .iter()
            .filter_map(|unit| Some((shard_of(unit)?, unit)))
    };
    for published in all {
        let has = |(shard, unit): &(String, &UnitDetail)| {
            let name = format!("{}{shard}", published.group);
            unit.reports.iter().any(|report| report.group == name)
        };
        let with = shards().filter(has).count();
        if 0 < with && with < shards().count() {
            published.status = ReportStatus::Incomplete;
        }
    }
}

/// What the names of a unit's groups end in, if it is a shard of a `build-fanout`.
fn shard_of(unit: &UnitDetail) -> Option<String> {
    let end = format!("-{}", unit.identifier.as_ref()?);
    end.starts_with(SHARD).then_some(end)
}

async fn all_of_unit(
    client: &CacheClient,
    unit: &UnitDetail,
    all: &mut Vec<Published>,
) -> Result<(), CommandError> {
    for report in &unit.reports {
        let mut published = fetch(client, report).await?;
        // Each shard of a `build-fanout` has its own group; together they are that of the tests.
        if let Some(end) = shard_of(unit)
            && let Some(group) = published.group.strip_suffix(&end)
        {
            published.group = group.to_owned();
        }
        let mut known = all.iter_mut();
        match known.find(|known| known.group == published.group && known.format == published.format)
        {
            Some(known) => known.absorb_shard(published),
            None => all.push(published),
        }
    }
    Ok(())
}

async fn fetch(client: &CacheClient, report: &ReportRef) -> Result<Published, CommandError> {
    let bytes = fetch_blob(client, &report.content, PUBLISHED_BYTES_MAX as u64)
        .await
        .map_err(CommandError::farm)?;
    Published::decode(&bytes)
        .with_context(|| format!("failed to show the report {:?}", report.group))
        .map_err(CommandError::farm)
}
