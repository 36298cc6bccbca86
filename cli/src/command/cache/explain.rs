//! `grange cache explain`: why a dependency cache was not there, and what was.

mod changes;
mod lookups;

use std::cmp::Reverse;

use protocol::{
    message::{
        cache::{EntrySummary, UseStats},
        client::{ClientReply, ClientRequest},
    },
    name::ProjectName,
};
use serde::Serialize;

pub(crate) use self::{changes::Changes, lookups::Lookup};
use self::{changes::Source, lookups::Wanted};
use super::Cache;
use crate::{
    args::ExplainArgs,
    command::Context,
    error::CommandError,
    farm::{Farm, unexpected},
    reach::Purpose,
    render,
};

/// How many of the nearest entries are shown.
const NEAREST_MAX: usize = 5;

/// What there is to say.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// What was looked for.
    pub(crate) key: String,
    /// By whom, and what came of it; `None`: somebody only asks about the key.
    pub(crate) looked: Option<Lookup>,
    /// Under which full keys it is there now.
    pub(crate) found: Vec<Near>,
    /// How often it was restored, missed and saved, by project.
    pub(crate) uses: Vec<UseStats>,
    /// The entries whose keys are most like it, nearest first.
    pub(crate) nearest: Vec<Near>,
}

/// An entry that is there.
#[derive(Debug, Serialize)]
pub(crate) struct Near {
    /// The project, or `@` and the name under which several share it; then `@` and a number if it was made
    /// invalid since.
    pub(crate) project: String,
    /// Which list of paths: entries of other lists are never found under one key.
    pub(crate) version: String,
    /// The key, after expansion.
    pub(crate) key: String,
    /// How many bytes its key has in common with the one that was looked for, from the start.
    pub(crate) shared: usize,
    /// When it was written and used, and how large it is.
    pub(crate) summary: EntrySummary,
    /// Which files of the source differ from those that it was made from; `None`: no source to compare
    /// was given, or it is not known what the entry was made from.
    pub(crate) changes: Option<Changes>,
}

/// Explains a key, or those that a build has looked for.
///
/// # Errors
///
/// If the farm or its cache cannot be asked, or the source cannot be read.
pub(super) async fn run(args: &ExplainArgs, context: &Context) -> Result<(), CommandError> {
    let source = match &args.source {
        None => None,
        Some(directory) => Some(Source::read(directory, &args.buildspec).await?),
    };
    context
        .with_farm(&args.read.farm, Purpose::Ask, async |reached| {
            let farm = &reached.farm;
            let wanted = lookups::wanted(args, farm).await?;
            let cache = Cache::of(farm).await?;
            let is_plain = !wanted.is_empty() && !args.read.json;
            for wanted in wanted {
                let explanation = explain(&cache, farm, (wanted, source.as_ref())).await?;
                render::explained(&explanation, args.read.json)?;
            }
            if source.is_none() && is_plain {
                render::note("`--source DIR` says which files have changed since");
            }
            Ok(())
        })
        .await
}

async fn explain(
    cache: &Cache,
    farm: &Farm,
    (wanted, source): (Wanted, Option<&Source>),
) -> Result<Explanation, CommandError> {
    let Wanted {
        key,
        project,
        looked,
    } = wanted;
    let (mut found, mut nearest) = (Vec::new(), Vec::new());
    for near in listed(cache, farm, (&key, project.as_ref())).await? {
        if near.key == key {
            found.push(near);
        } else {
            nearest.push(near);
        }
    }
    nearest.sort_by_key(|near| (Reverse(near.shared), Reverse(near.summary.used)));
    nearest.truncate(NEAREST_MAX);
    if let Some(source) = source {
        for near in found.iter_mut().chain(&mut nearest) {
            near.changes = source.changes(cache, near).await?;
        }
    }
    let stats = cache.client.stats().await.map_err(CommandError::of_cache)?;
    let mut uses = stats.uses;
    uses.retain(|uses| uses.key == key && project.as_ref().is_none_or(|of| uses.project == *of));
    Ok(Explanation {
        key,
        looked,
        found,
        uses,
        nearest,
    })
}

/// The dependency caches of a project, or of all of the team's, those that were made invalid too: they say why
/// nothing is there.
async fn listed(
    cache: &Cache,
    farm: &Farm,
    (key, project): (&str, Option<&ProjectName>),
) -> Result<Vec<Near>, CommandError> {
    let names = match project {
        None => None,
        Some(project) => Some(names(project, farm).await?),
    };
    let starts = names.clone().unwrap_or_else(|| vec![String::new()]);
    let mut all = Vec::new();
    for start in starts {
        let prefix = format!("dependency/{start}");
        let listed = cache.client.list_entries(&cache.namespace, &prefix).await;
        let listed = listed.map_err(CommandError::of_cache)?.into_iter();
        let near = listed.filter_map(|(path, summary)| near(&path, summary, key));
        // A name may begin another.
        all.extend(near.filter(|near| names.is_none() || name_of(&near.project) == start));
    }
    Ok(all)
}

/// Under which names the dependency caches of a project stand: its own, and the one that it shares with others.
async fn names(project: &ProjectName, farm: &Farm) -> Result<Vec<String>, CommandError> {
    let request = ClientRequest::Project(project.clone());
    let detail = match farm.ask(&request).await? {
        ClientReply::Project(detail) => detail,
        other => return Err(unexpected(&other)),
    };
    let shared = detail.and_then(|detail| detail.project.cache.namespace);
    let shared = shared.map(|name| format!("@{name}"));
    Ok([project.to_string()].into_iter().chain(shared).collect())
}

/// The name in front of the number of a generation: `app` of `app@3`, `@all` of `@all@3`.
fn name_of(project: &str) -> &str {
    let mut marks = project.match_indices('@').filter(|(at, _)| 0 < *at);
    marks.next().map_or(project, |(at, _)| &project[..at])
}

/// What a full key says; `None`: it is of no dependency cache.
fn near(path: &str, summary: EntrySummary, wanted: &str) -> Option<Near> {
    let mut words = path.strip_prefix("dependency/")?.splitn(3, '/');
    let (project, version, key) = (words.next()?, words.next()?, words.next()?);
    let pairs = key.bytes().zip(wanted.bytes());
    Some(Near {
        project: project.to_owned(),
        version: version.to_owned(),
        shared: pairs.take_while(|(a, b)| a == b).count(),
        key: key.to_owned(),
        summary,
        changes: None,
    })
}

#[cfg(test)]
mod tests {
    use protocol::time::WallTime;

    use super::*;

    #[test]
    fn the_nearest_key_shares_the_longest_beginning() {
        let summary = EntrySummary {
            written: WallTime(0),
            used: WallTime(0),
            bytes: 0,
            chunks: 0,
        };
        let shared = |path: &str| near(path, summary.clone(), "npm-abc").map(|near| near.shared);
        assert_eq!(shared("dependency/app/v/npm-abd"), Some(6));
        assert_eq!(shared("dependency/app/v/"), Some(0));
        assert_eq!(shared("snapshot/app/v/npm-abd"), None);
    }

    #[test]
    fn generations_of_a_name_are_all_its_own() {
        let names = ["app", "app@3", "@all", "@all@12"].map(name_of);
        assert_eq!(names, ["app", "app", "@all", "@all"]);
    }
}
