//! What a build has looked for: keys and fallback keys after expansion, as the coordinator keeps them.

use anyhow::anyhow;
use protocol::{
    job::{CacheUse, CacheUseKind},
    message::client::{BuildDetail, ClientReply, ClientRequest, UnitDetail},
    name::ProjectName,
};
use serde::Serialize;

use crate::{
    args::ExplainArgs,
    command::read::detail,
    error::CommandError,
    farm::{Farm, unexpected},
    render,
};

/// That a build has looked for a dependency cache.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Lookup {
    /// The build's id.
    pub(crate) build: String,
    /// The same for people: `<project>#<number>`.
    pub(crate) number: String,
    /// Which unit; `None`: the build has one only. Of several that looked for the same the first.
    pub(crate) unit: Option<String>,
    /// How keys began that would have done as well, after expansion, in the order in which they were to be tried.
    pub(crate) fallbacks: Vec<String>,
    /// What came of it.
    pub(crate) what: CacheUseKind,
    /// Whether the unit saved an entry under the key when it was done.
    pub(crate) saved: bool,
}

/// A key that is to be explained.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    /// After expansion.
    pub(super) key: String,
    /// Whose entries count; `None`: all of the team's.
    pub(super) project: Option<ProjectName>,
    /// Who has looked for it.
    pub(super) looked: Option<Lookup>,
}

/// What somebody wants explained: the key that was typed, or what a build has looked for.
///
/// # Errors
///
/// If the farm cannot be asked, or there is no such build.
pub(super) async fn wanted(args: &ExplainArgs, farm: &Farm) -> Result<Vec<Wanted>, CommandError> {
    if let Some(key) = &args.key {
        return Ok(vec![Wanted {
            key: key.clone(),
            project: args.project.clone(),
            looked: None,
        }]);
    }
    let build = match &args.build {
        Some(build) => build.clone(),
        None => last_build(args.project.as_ref(), farm).await?,
    };
    let detail = detail(farm, &build).await?;
    let wanted = lookups(&detail);
    if wanted.is_empty() {
        let build = detail.summary.build;
        render::note(&format!(
            "build {build} has looked for no dependency cache so far"
        ));
    }
    Ok(wanted)
}

async fn last_build(project: Option<&ProjectName>, farm: &Farm) -> Result<String, CommandError> {
    let request = ClientRequest::Builds {
        project: project.cloned(),
        limit: 1,
    };
    let builds = match farm.ask(&request).await? {
        ClientReply::Builds(builds) => builds,
        other => return Err(unexpected(&other)),
    };
    let last = builds.first().map(|build| build.build.to_string());
    last.ok_or_else(|| {
        let of = project.map_or_else(String::new, |project| format!(" of project {project}"));
        CommandError::usage(anyhow!("there is no build{of}"))
    })
}

/// What a build has looked for, each key once.
fn lookups(detail: &BuildDetail) -> Vec<Wanted> {
    let summary = &detail.summary;
    let mut wanted: Vec<Wanted> = Vec::new();
    for unit in &detail.units {
        for used in uses(unit).filter(|used| is_lookup(used.what)) {
            if wanted.iter().any(|wanted| wanted.key == used.key) {
                continue;
            }
            let is_saved =
                |other: &CacheUse| other.what == CacheUseKind::Saved && other.key == used.key;
            let looked = Lookup {
                build: summary.build.to_string(),
                number: format!("{}#{}", summary.project, summary.number),
                unit: unit.identifier.clone(),
                fallbacks: used.fallbacks.clone(),
                what: used.what,
                saved: uses(unit).any(is_saved),
            };
            wanted.push(Wanted {
                key: used.key.clone(),
                project: Some(summary.project.clone()),
                looked: Some(looked),
            });
        }
    }
    wanted
}

fn uses(unit: &UnitDetail) -> impl Iterator<Item = &CacheUse> {
    unit.phases.iter().flat_map(|phase| &phase.cache_uses)
}

const fn is_lookup(what: CacheUseKind) -> bool {
    match what {
        CacheUseKind::Restored | CacheUseKind::RestoredByFallback | CacheUseKind::Missed => true,
        CacheUseKind::Saved | CacheUseKind::Kept => false,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        build::{BuildId, Outcome, Phase, Status},
        message::client::{BuildSummary, PhaseDetail},
        time::WallTime,
    };

    use super::*;

    const ENDED: Status = Status::Ended(Outcome::Succeeded);

    fn used(key: &str, what: CacheUseKind) -> CacheUse {
        CacheUse {
            key: key.to_owned(),
            fallbacks: vec!["npm-".to_owned()],
            what,
            bytes: 0,
            bytes_moved: 0,
            millis: 0,
        }
    }

    fn unit(identifier: &str, uses: &[CacheUse]) -> UnitDetail {
        let phase = |used: &CacheUse| PhaseDetail {
            job: 0,
            phase: Phase::DownloadSource,
            status: ENDED,
            waits: None,
            attempts: 1,
            worker: None,
            started: None,
            ended: None,
            context: None,
            cache_uses: vec![used.clone()],
            fetches: 0,
        };
        UnitDetail {
            identifier: Some(identifier.to_owned()),
            status: ENDED,
            ignore_failure: false,
            phases: uses.iter().map(phase).collect(),
            artifact: None,
            secondary_artifacts: Default::default(),
            exported_variables: Default::default(),
            reports: Vec::new(),
        }
    }

    #[test]
    fn each_key_that_a_build_has_looked_for_is_told_once_with_what_came_of_it() {
        let linux = [
            used("npm-1", CacheUseKind::Missed),
            used("npm-1", CacheUseKind::Saved),
        ];
        let other = [
            used("npm-1", CacheUseKind::Missed),
            used("npm-2", CacheUseKind::RestoredByFallback),
            used("npm-2", CacheUseKind::Kept),
        ];
        let detail = BuildDetail {
            summary: BuildSummary {
                build: BuildId(7),
                project: "app".parse().unwrap(),
                number: 3,
                team: "red".parse().unwrap(),
                initiator: "me".to_owned(),
                status: ENDED,
                submitted: WallTime(0),
                started: None,
                ended: None,
            },
            source_version: None,
            batch: None,
            units: vec![unit("linux", &linux), unit("other", &other)],
        };
        let wanted = |key: &str, unit: &str, what, saved| Wanted {
            key: key.to_owned(),
            project: Some("app".parse().unwrap()),
            looked: Some(Lookup {
                build: BuildId(7).to_string(),
                number: "app#3".to_owned(),
                unit: Some(unit.to_owned()),
                fallbacks: vec!["npm-".to_owned()],
                what,
                saved,
            }),
        };
        let expected = [
            wanted("npm-1", "linux", CacheUseKind::Missed, true),
            wanted("npm-2", "other", CacheUseKind::RestoredByFallback, false),
        ];
        assert_eq!(lookups(&detail), expected);
    }
}
