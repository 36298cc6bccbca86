//! `grange artifacts`: what a build published, and fetching it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, anyhow};
use cache::{
    capture::Dialect,
    materialize::{Materialize, Owner, RootMode, materialize_into},
    progress::Progress,
};
use protocol::{
    job::Artifact,
    message::client::BuildDetail,
    timeline::{BatchPhase, batch_timeline},
};

use crate::{
    args::ArtifactsArgs,
    command::{Context, leftovers, read},
    error::CommandError,
    farm::Farm,
    reach::Purpose,
    render::{self, bar},
};

/// An artifact, and whose it is.
#[derive(Debug)]
pub(crate) struct Published {
    /// The batch task that published it; `None`: the build is no batch.
    pub(crate) unit: Option<String>,
    /// The identifier of a secondary artifact; `None`: it is none.
    pub(crate) identifier: Option<String>,
    /// What it is called.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) content: Content,
}

/// What is in an artifact.
#[derive(Debug)]
pub(crate) enum Content {
    /// What one unit has published.
    One(Box<Artifact>),
    /// What the tasks of a batch have published, by task: each has a directory of its name in it.
    Combined(BTreeMap<String, Artifact>),
}

impl Published {
    fn parts(&self) -> impl Iterator<Item = (Option<&String>, &Artifact)> {
        let (one, parts) = match &self.content {
            Content::One(artifact) => (Some(&**artifact), None),
            Content::Combined(parts) => (None, Some(parts)),
        };
        let parts = parts.into_iter().flatten();
        let parts = parts.map(|(unit, artifact)| (Some(unit), artifact));
        one.into_iter()
            .map(|artifact| (None, artifact))
            .chain(parts)
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> u64 {
        self.parts().map(|(_, artifact)| artifact.files).sum()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts().map(|(_, artifact)| artifact.bytes).sum()
    }
}

/// Lists or fetches the artifacts of a build.
///
/// # Errors
///
/// If the farm cannot be reached, does not know the build, or the files cannot be written.
pub(crate) async fn run(args: &ArtifactsArgs, context: &Context) -> Result<(), CommandError> {
    if let Some(directory) = &args.to {
        check_target(directory)?;
    }
    let json = args.read.json;
    context
        .with_farm(&args.read.farm, Purpose::Ask, async |reached| {
            let farm = &reached.farm;
            match &args.to {
                Some(directory) => fetch(farm, &args.build, directory, json).await,
                None => render::artifacts(&list(farm, &args.build).await?, json),
            }
        })
        .await
}

/// Checks that files can be put into `directory`, before anything is done for them. It is not made yet.
///
/// # Errors
///
/// If something that is no directory is in the way.
pub(crate) fn check_target(directory: &Path) -> Result<(), CommandError> {
    let there = directory.ancestors().find(|path| path.exists());
    match there.filter(|path| !path.is_dir()) {
        None => Ok(()),
        Some(path) => Err(CommandError::usage(anyhow!(
            "artifacts cannot be put into `{}`: `{}` is no directory",
            directory.display(),
            path.display()
        ))),
    }
}

/// Fetches all artifacts of a build into `directory`; those of batch tasks each below its identifier, and
/// secondary ones below theirs.
///
/// # Errors
///
/// As [`run`].
pub(crate) async fn fetch(
    farm: &Farm,
    build: &str,
    directory: &Path,
    json: bool,
) -> Result<(), CommandError> {
    let artifacts = list(farm, build).await?;
    if artifacts.is_empty() {
        render::note("the build has no artifacts");
        return Ok(());
    }
    let (client, _) = farm.cache().await?;
    let parts = artifacts.iter().flat_map(|of| {
        let own = of.unit.iter().chain(&of.identifier);
        let own = own.fold(directory.to_owned(), |target, name| target.join(name));
        of.parts().map(move |(unit, artifact)| {
            let target = unit.map_or_else(|| own.clone(), |unit| own.join(unit));
            (target, artifact)
        })
    });
    for (target, artifact) in parts {
        fs::create_dir_all(&target)
            .with_context(|| format!("failed to make the directory `{}`", target.display()))
            .map_err(CommandError::usage)?;
        leftovers::clear(&target).await;
        let progress = Progress::default();
        let options = Materialize {
            dialect: Dialect::Plain,
            owner: Owner::Own,
            default_modified: None,
            root: RootMode::Usual,
            progress: progress.clone(),
        };
        let fetching = materialize_into(&client, &artifact.tree, &target, options);
        bar::show("fetching artifacts", &progress, fetching)
            .await
            .map_err(CommandError::farm)?;
        if !json {
            render::fetched(artifact, &target);
        }
    }
    Ok(())
}

/// The artifacts of a build: of each unit the first, then the secondary ones; but the first ones of a batch that are
/// combined are one, in front of all.
async fn list(farm: &Farm, build: &str) -> Result<Vec<Published>, CommandError> {
    let detail = read::detail(farm, build).await?;
    let artifacts = listed(detail);
    match artifacts.iter().find_map(bad_name) {
        Some(name) => Err(CommandError::farm(anyhow!(
            "a batch task or an artifact is called {name:?}"
        ))),
        None => Ok(artifacts),
    }
}

/// A name that cannot be one of a directory, which names of tasks and artifacts become.
fn bad_name(of: &Published) -> Option<String> {
    let parts = of.parts().filter_map(|(unit, _)| unit);
    let mut names = of.unit.iter().chain(&of.identifier).chain(parts);
    let is_bad = |name: &&String| name.contains('/') || name.starts_with('.');
    names.find(is_bad).cloned()
}

fn listed(detail: BuildDetail) -> Vec<Published> {
    let phases = batch_timeline(&detail);
    let combines = phases
        .iter()
        .any(|entry| entry.phase == BatchPhase::CombineArtifacts);
    let mut combined = BTreeMap::new();
    let mut artifacts = Vec::new();
    for unit in detail.units {
        let name = unit.identifier;
        match (unit.artifact, &name) {
            (Some(artifact), Some(task)) if combines => {
                combined.insert(task.clone(), artifact);
            }
            (Some(artifact), _) => artifacts.push(published(&name, None, artifact)),
            (None, _) => {}
        }
        for (identifier, artifact) in unit.secondary_artifacts {
            artifacts.push(published(&name, Some(identifier), artifact));
        }
    }
    if !combined.is_empty() {
        let combined = Published {
            unit: None,
            identifier: None,
            name: detail.summary.project.to_string(),
            content: Content::Combined(combined),
        };
        artifacts.insert(0, combined);
    }
    artifacts
}

fn published(unit: &Option<String>, identifier: Option<String>, artifact: Artifact) -> Published {
    Published {
        unit: unit.clone(),
        identifier,
        name: artifact.name.clone(),
        content: Content::One(Box::new(artifact)),
    }
}
