//! `grange artifacts`: what a build published, and fetching it.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use cache::{
    capture::Dialect,
    materialize::{Materialize, Owner, materialize_into, remove_partials},
    progress::Progress,
};
use protocol::job::Artifact;

use crate::{
    args::ArtifactsArgs,
    command::{Context, read},
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
    /// The artifact.
    pub(crate) artifact: Artifact,
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
    for Published {
        unit,
        identifier,
        artifact,
    } in &artifacts
    {
        let names = unit.iter().chain(identifier);
        let target = names.fold(directory.to_owned(), |target, name| target.join(name));
        fs::create_dir_all(&target)
            .with_context(|| format!("failed to make the directory `{}`", target.display()))
            .map_err(CommandError::usage)?;
        tidy(&target).await;
        let progress = Progress::default();
        let options = Materialize {
            dialect: Dialect::Plain,
            owner: Owner::Own,
            default_modified: None,
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

/// Removes what an earlier fetch that was killed left in `directory`.
async fn tidy(directory: &Path) {
    let left = directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_partials(&left)).await;
    // The new files get there all the same.
    if let Ok(Err(error)) = removed {
        let directory = directory.display();
        render::note(&format!(
            "what an earlier fetch left in `{directory}` is still there: {error}"
        ));
    }
}

/// The artifacts of a build: of each unit the first, then the secondary ones.
async fn list(farm: &Farm, build: &str) -> Result<Vec<Published>, CommandError> {
    let detail = read::detail(farm, build).await?;
    let mut artifacts = Vec::new();
    for unit in detail.units {
        let name = &unit.identifier;
        let first = unit.artifact.map(|artifact| (None, artifact));
        let others = unit.secondary_artifacts.into_iter();
        let others = others.map(|(identifier, artifact)| (Some(identifier), artifact));
        artifacts.extend(
            first
                .into_iter()
                .chain(others)
                .map(|(identifier, artifact)| Published {
                    unit: name.clone(),
                    identifier,
                    artifact,
                }),
        );
    }
    // Identifiers become names of directories.
    let mut names = artifacts
        .iter()
        .flat_map(|of| of.unit.iter().chain(&of.identifier));
    let bad = names.find(|name| name.contains('/') || name.starts_with('.'));
    match bad {
        Some(name) => Err(CommandError::farm(anyhow!(
            "a batch task or an artifact is called {name:?}"
        ))),
        None => Ok(artifacts),
    }
}
