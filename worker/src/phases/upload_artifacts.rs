//! `UPLOAD_ARTIFACTS`: selects what the build publishes, and brings it to the cache.

use std::{collections::BTreeSet, path::Path};

use cache::{
    capture::{Captured, Dialect, capture},
    selection::Selection,
};
use protocol::{
    artifact::ArtifactsSpec,
    job::{Artifact, Shell, ShellState},
    message::cache::keys,
    path::TreePath,
    snapshot::Snapshot,
    tree::EntryKind,
};

use super::{PhaseEnd, Work, artifact::Reshape, commands::upload, save::root_of, state};
use crate::{
    attempt::Verdict,
    expand::expand,
    fault::{Fault, blocking},
    find::{Match, find},
    ground::Ground,
    layers::remove,
    patterns::{Anchors, Pattern, normalise},
    sandbox::Expansion,
};

/// Uploads the artifacts.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    (artifacts, shell): (Option<&ArtifactsSpec>, Shell),
) -> Result<PhaseEnd, Fault> {
    let end = match artifacts {
        None => PhaseEnd::new(Verdict::succeeded()),
        Some(spec) => {
            let snapshot = state::load(work, ground).await?;
            work.open(ground, &snapshot, (shell, ShellState::Carried))
                .await?;
            let published = publish(work, ground, &snapshot, spec).await?;
            work.scene.finish().await?;
            match published {
                Ok(artifact) => PhaseEnd {
                    artifact: Some(artifact),
                    ..PhaseEnd::new(Verdict::succeeded())
                },
                Err(message) => PhaseEnd::new(Verdict::client_error(message)),
            }
        }
    };
    if let Ground::Host { unit, .. } = ground {
        // No phase of the unit follows.
        let unit = unit.clone();
        blocking("remove the directory of the unit", move || remove(&unit)).await?;
    }
    Ok(PhaseEnd {
        snapshot: state::unchanged(work),
        ..end
    })
}

/// Selects and uploads; what the user has to mend is a message.
async fn publish(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    spec: &ArtifactsSpec,
) -> Result<Result<Artifact, String>, Fault> {
    let chosen = match select(work, ground, snapshot, spec).await? {
        Ok(chosen) => chosen,
        Err(message) => return Ok(Err(message)),
    };
    let name = match &spec.name {
        None => work.assignment.project.to_string(),
        Some(name) => match expand_name(work, name).await? {
            Ok(name) => name,
            Err(message) => return Ok(Err(message)),
        },
    };
    let root = root_of(work, ground)?;
    let selection = Selection::paths(chosen.paths);
    let capture_again = move || capture(&root, &selection, Dialect::Plain);
    let captured = blocking("capture the artifacts", capture_again.clone()).await?;
    let captured = match reshaped(captured, &chosen.reshape) {
        Ok(captured) => captured,
        Err(error) => return Ok(Err(format!("Error in UPLOAD_ARTIFACTS phase: {error}"))),
    };
    let is_file = |kind: &EntryKind| !matches!(kind, EntryKind::Directory { .. });
    let files = captured.tree.entries().iter();
    let files = files.filter(|entry| is_file(&entry.kind)).count() as u64;
    let bytes = captured.tree.bytes();
    let reshape = chosen.reshape;
    let again = move || {
        let captured = capture_again()?;
        reshaped(captured, &reshape).map_err(|source| cache::capture::CaptureError::Tree { source })
    };
    let (tree, _) = upload(work, captured, again).await?;
    let key = keys::artifact(work.assignment.job.build, work.assignment.unit);
    let named = (Vec::new(), vec![tree.clone()], Vec::new());
    work.put_entry(key, named, true).await?;
    Ok(Ok(Artifact {
        name,
        tree,
        files,
        bytes,
    }))
}

fn reshaped(
    mut captured: Captured,
    reshape: &Reshape,
) -> Result<Captured, protocol::tree::TreeError> {
    let (tree, attributes) = reshape.apply(&captured.tree, &captured.attributes)?;
    captured.tree = tree;
    captured.attributes = attributes;
    Ok(captured)
}

/// What is to be published.
struct Chosen {
    paths: BTreeSet<TreePath>,
    reshape: Reshape,
}

async fn select(
    work: &Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    spec: &ArtifactsSpec,
) -> Result<Result<Chosen, String>, Fault> {
    let expanded = |text: &str| expand(text, &snapshot.variables);
    let base = expanded(spec.base_directory.as_deref().unwrap_or("."));
    work.say(&format!("Expanding base directory path: {base}"))
        .await?;
    work.say("Assembling file list").await?;
    work.say(&format!("Expanding {base}")).await?;
    let root = root_of(work, ground)?;
    let bases = {
        let (root, base, ground) = (root.clone(), base.clone(), ground.clone());
        blocking("look up the base directory", move || {
            base_directories(&root, &base, &ground.anchors())
        })
        .await?
    };
    if bases.is_empty() {
        let message = format!("no matching base directory path found for {base}");
        return Ok(Err(message));
    }
    work.say(&format!("Expanding file paths for base directory {base}"))
        .await?;
    work.say("Assembling file list").await?;
    let files: Vec<_> = spec.files.iter().map(|text| expanded(text)).collect();
    let excluded: Vec<_> = spec
        .exclude_paths
        .iter()
        .map(|text| expanded(text))
        .collect();
    let found = {
        let (bases, files, ground) = (bases.clone(), files.clone(), ground.clone());
        blocking("look up the files of the artifact", move || {
            matches_of(&root, &bases, (&files, &excluded), &ground.anchors())
        })
        .await?
    };
    let mut paths = BTreeSet::new();
    for (written, found) in files.iter().zip(found) {
        work.say(&format!("Expanding {written}")).await?;
        let said = match found.len() {
            0 => format!("Skipping invalid file path {written}"),
            count => format!("Found {count} file(s)"),
        };
        work.say(&said).await?;
        paths.extend(found);
    }
    if paths.is_empty() {
        return Ok(Err("no matching artifact paths found".to_owned()));
    }
    let reshape = Reshape {
        bases,
        discard_paths: spec.discard_paths,
    };
    Ok(Ok(Chosen { paths, reshape }))
}

/// The directories that a base directory's pattern names, below the root. Blocking.
fn base_directories(
    root: &Path,
    base: &str,
    anchors: &Anchors<'_>,
) -> std::io::Result<Vec<String>> {
    if normalise(base, anchors).is_some_and(|base| base.is_empty()) {
        return Ok(vec![String::new()]);
    }
    let Some(pattern) = Pattern::new(base, anchors) else {
        return Ok(Vec::new());
    };
    let found = find(root, &[pattern])?.remove(0);
    let mut directories: Vec<_> = found
        .into_iter()
        .filter(|found| found.is_directory)
        // What is not UTF-8 cannot be a pattern's start; its files would be named by no pattern.
        .filter_map(|found| String::from_utf8(found.path.into()).ok())
        .collect();
    directories.sort();
    Ok(directories)
}

/// For each of `files`, what it matches in all base directories and nothing of `excluded` does.
/// Blocking.
fn matches_of(
    root: &Path,
    bases: &[String],
    (files, excluded): (&[String], &[String]),
    anchors: &Anchors<'_>,
) -> std::io::Result<Vec<BTreeSet<TreePath>>> {
    let mut chosen = vec![BTreeSet::new(); files.len()];
    for base in bases {
        let anchors = Anchors {
            source: base,
            ..*anchors
        };
        let read = |text: &String| Pattern::new(text, &anchors);
        let excluded: Vec<_> = excluded.iter().filter_map(read).collect();
        let is_wanted = |found: &Match| {
            let out = excluded.iter().any(|pattern| pattern.matches(&found.path));
            !found.is_directory && !out
        };
        for (index, text) in files.iter().enumerate() {
            let Some(pattern) = read(text) else { continue };
            let found = find(root, &[pattern])?.remove(0);
            let wanted = found.into_iter().filter(is_wanted);
            chosen[index].extend(wanted.map(|found| found.path));
        }
    }
    Ok(chosen)
}

async fn expand_name(work: &mut Work<'_>, name: &str) -> Result<Result<String, String>, Fault> {
    let why = match work.scene.expand(name, work.log).await? {
        Expansion::Word(word) => match String::from_utf8(word) {
            Ok(name) => return Ok(Ok(name)),
            Err(_) => "it is not UTF-8".to_owned(),
        },
        Expansion::Failed(status) => format!("exit status {status}"),
        Expansion::TooLong => "it is too long".to_owned(),
        Expansion::TimedOut => "it takes too long".to_owned(),
    };
    Ok(Err(format!(
        "Error in UPLOAD_ARTIFACTS phase: artifact name `{name}` cannot be expanded: {why}"
    )))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::ground::{HOME, SOURCE};

    const ANCHORS: Anchors<'_> = Anchors {
        source: SOURCE,
        home: HOME,
        root: "/",
    };

    fn root() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(SOURCE);
        for file in [
            "dist-a/x",
            "dist-b/y",
            "dist-b/deep/z",
            "dist-b/deep/z.map",
            "README",
        ] {
            let file = source.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let root = folder.path().to_owned();
        (folder, root)
    }

    #[test]
    fn a_base_directory_may_name_several() {
        let (_folder, root) = root();
        let found = |base| base_directories(&root, base, &ANCHORS).unwrap();
        assert_eq!(
            found("dist-*"),
            [format!("{SOURCE}/dist-a"), format!("{SOURCE}/dist-b")]
        );
        assert_eq!(found("."), [SOURCE]);
        assert_eq!(found("README"), [""; 0], "a file is no directory");
        assert_eq!(found("nothing"), [""; 0]);
    }

    #[test]
    fn files_are_found_in_every_base_directory_and_the_excluded_are_not() {
        let (_folder, root) = root();
        let bases = base_directories(&root, "dist-*", &ANCHORS).unwrap();
        let files = ["**/*", "nothing"].map(str::to_owned);
        let excluded = ["**/*.map".to_owned()];
        let found = matches_of(&root, &bases, (&files, &excluded), &ANCHORS).unwrap();
        let shown: Vec<_> = found[0].iter().map(ToString::to_string).collect();
        let expected = ["dist-a/x", "dist-b/deep/z", "dist-b/y"];
        assert_eq!(shown, expected.map(|file| format!("{SOURCE}/{file}")));
        assert!(found[1].is_empty());
    }
}
