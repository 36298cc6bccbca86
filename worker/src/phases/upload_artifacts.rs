//! `UPLOAD_ARTIFACTS`: selects what the build publishes, and brings it to the cache; then its reports.

use std::{collections::BTreeMap, convert::Infallible, path::Path};

use super::{
    PhaseEnd, Work,
    artifact::published,
    commands::upload,
    reports,
    save::root_of,
    scan::{self, Look, Names},
    source_path, state,
};
use crate::{
    attempt::Verdict,
    fault::{Fault, blocking},
    ground::Ground,
    patterns::rooted,
    report::Chain,
    sandbox::Expansion,
};
use cache::{
    capture::{CaptureError, Captured, Dialect, capture},
    globs::{ArtifactFiles, GlobError, View, find_artifacts},
    selection::Selection,
};
use protocol::{
    artifact::ArtifactsSpec,
    job::{Artifact, Shell, ShellState},
    message::cache::keys,
    path::TreePath,
    report_group::ReportSpec,
    snapshot::Snapshot,
    tree::{EntryKind, TreeError},
};

/// What a unit publishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The artifact; `None`: none.
    pub(super) artifact: Option<&'a ArtifactsSpec>,
    /// Other artifacts, by identifier.
    pub(super) secondary: &'a BTreeMap<String, ArtifactsSpec>,
    /// The groups of reports that the buildspec names.
    pub(super) reports: &'a [ReportSpec],
}

/// What was published of it.
#[derive(Debug, Default)]
struct Uploaded {
    artifact: Option<Artifact>,
    secondary: BTreeMap<String, Artifact>,
    /// What the build's author has to mend.
    problems: Vec<String>,
}

/// Uploads the artifacts, and the reports that are named or discovered.
pub(super) async fn run(
    work: &mut Work<'_>,
    ground: &Ground,
    wanted: Wanted<'_>,
    shell: Shell,
) -> Result<PhaseEnd, Fault> {
    let snapshot = state::load(work, ground).await?;
    let is_discovering = reports::are_discovered(&work.variables(&snapshot));
    if is_discovering {
        let seconds = ::report::DISCOVERY_TIME_MAX.as_secs();
        work.say(&format!(
            "Set report auto-discover timeout to {seconds} seconds"
        ))
        .await?;
    }
    let nothing = wanted.artifact.is_none() && wanted.reports.is_empty();
    let end = if nothing && !is_discovering {
        PhaseEnd::new(Verdict::succeeded())
    } else {
        work.open(ground, &snapshot, (shell, ShellState::Carried))
            .await?;
        let uploaded = publish_all(work, ground, &snapshot, wanted).await?;
        let collected = reports::collect(work, ground, &snapshot, wanted.reports).await?;
        work.scene.finish().await?;
        // Reports are uploaded although artifacts are not, and the other way round.
        let problems: Vec<_> = uploaded
            .problems
            .into_iter()
            .chain(collected.problem)
            .collect();
        let verdict = match problems.is_empty() {
            true => Verdict::succeeded(),
            false => Verdict::client_error(problems.join("; ")),
        };
        PhaseEnd {
            artifact: uploaded.artifact,
            secondary_artifacts: uploaded.secondary,
            reports: collected.reports,
            ..PhaseEnd::new(verdict)
        }
    };
    if let Ground::Host { place, .. } = ground {
        // No phase of the unit follows, unless the coordinator does not hear of this one.
        work.site.units.ended(work.assignment.lease, *place);
    }
    Ok(PhaseEnd {
        snapshot: state::unchanged(work),
        ..end
    })
}

/// Uploads the artifact, then the secondary ones. One that cannot be published keeps no other back.
async fn publish_all(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
) -> Result<Uploaded, Fault> {
    let mut uploaded = Uploaded::default();
    let Some(spec) = wanted.artifact else {
        return Ok(uploaded);
    };
    let assignment = work.assignment;
    let of = (assignment.job.build, assignment.unit, assignment.attempt);
    let key = keys::artifact(of.0, of.1, of.2);
    match publish(work, ground, snapshot, (spec, key)).await? {
        Ok(artifact) => uploaded.artifact = Some(artifact),
        Err(problem) => uploaded.problems.push(problem),
    }
    if wanted.secondary.is_empty() {
        work.say("No secondary artifacts defined in buildspec")
            .await?;
    }
    for (identifier, spec) in wanted.secondary {
        work.say(&format!(
            "Preparing to copy secondary artifacts {identifier}"
        ))
        .await?;
        let key = keys::secondary_artifact(of, identifier);
        match publish(work, ground, snapshot, (spec, key)).await? {
            Ok(artifact) => drop(uploaded.secondary.insert(identifier.clone(), artifact)),
            Err(problem) => uploaded.problems.push(problem),
        }
    }
    Ok(uploaded)
}

/// Selects and uploads, under a key of the cache; what the user has to mend is a message.
async fn publish(
    work: &mut Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    (spec, key): (&ArtifactsSpec, String),
) -> Result<Result<Artifact, String>, Fault> {
    let places = match select(work, ground, snapshot, spec).await? {
        Ok(places) => places,
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
    let selection = Selection::paths(places.values().cloned().collect());
    let capture_again = move || capture(&root, &selection, Dialect::Plain);
    let captured = blocking("capture the artifacts", capture_again.clone()).await?;
    let captured = match reshaped(captured, &places) {
        Ok(captured) => captured,
        Err(error) => return Ok(Err(format!("Error in UPLOAD_ARTIFACTS phase: {error}"))),
    };
    // Its paths are looked at as they are published: links can give them names that no file has.
    let look = Look::new(work, Names::Whole);
    let (captured, found) = look.find(captured).await?;
    if !found.is_empty() {
        // One with holes would be taken for the whole.
        return Ok(Err(format!(
            "Error in UPLOAD_ARTIFACTS phase: artifact is not published, as it holds secrets: {}",
            scan::shown(&found)
        )));
    }
    let is_file = |kind: &EntryKind| !matches!(kind, EntryKind::Directory { .. });
    let files = captured.tree.entries().iter();
    let files = files.filter(|entry| is_file(&entry.kind)).count() as u64;
    let bytes = captured.tree.bytes();
    let again = move || {
        let captured = capture_again()?;
        let captured = reshaped(captured, &places);
        look.again(captured.map_err(|source| CaptureError::Tree { source })?)
    };
    let (tree, _) = upload(work, captured, again).await?;
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
    places: &BTreeMap<TreePath, TreePath>,
) -> Result<Captured, TreeError> {
    (captured.tree, captured.attributes) = published(places, &captured.tree, &captured.attributes)?;
    Ok(captured)
}

/// For each path in the artifact, what is there, below the root; or what the user has to mend.
async fn select(
    work: &Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
    spec: &ArtifactsSpec,
) -> Result<Result<BTreeMap<TreePath, TreePath>, String>, Fault> {
    let spec = expanded(spec, &work.variables(snapshot), ground.root_text());
    let base = spec.base_directory.as_deref().unwrap_or(".");
    for text in [
        format!("Expanding base directory path: {base}"),
        "Assembling file list".to_owned(),
        format!("Expanding {base}"),
        format!("Expanding file paths for base directory {base}"),
        "Assembling file list".to_owned(),
    ] {
        work.say(&text).await?;
    }
    for pattern in &spec.files {
        work.say(&format!("Expanding {pattern}")).await?;
    }
    let root = root_of(work, ground)?;
    let files = spec.files.clone();
    let looked_up = blocking("look up the files of the artifact", move || {
        Ok::<_, Infallible>(find(&root, &spec))
    });
    match looked_up.await? {
        Ok(found) => {
            for pattern in &found.unmatched {
                work.say(&format!("Skipping invalid file path {pattern}"))
                    .await?;
            }
            work.say(&format!("Found {} file(s)", found.files.len()))
                .await?;
            Ok(Ok(found.files))
        }
        Err(error @ GlobError::NoArtifacts) => {
            for pattern in &files {
                work.say(&format!("Skipping invalid file path {pattern}"))
                    .await?;
            }
            Ok(Err(error.to_string()))
        }
        Err(error @ GlobError::NoBaseDirectory { .. }) => Ok(Err(error.to_string())),
        Err(error) => Ok(Err(format!(
            "Error in UPLOAD_ARTIFACTS phase: {}",
            Chain(&error)
        ))),
    }
}

/// The section with its variables expanded, below the root that commands know as `root`.
fn expanded(
    spec: &ArtifactsSpec,
    variables: &BTreeMap<String, Vec<u8>>,
    root: &str,
) -> ArtifactsSpec {
    let one = |text: &String| rooted(text, variables, root);
    ArtifactsSpec {
        name: spec.name.clone(),
        files: spec.files.iter().map(one).collect(),
        exclude_paths: spec.exclude_paths.iter().map(one).collect(),
        base_directory: spec.base_directory.as_ref().map(one),
        discard_paths: spec.discard_paths,
        enable_symlinks: spec.enable_symlinks,
    }
}

fn find(root: &Path, spec: &ArtifactsSpec) -> Result<ArtifactFiles, GlobError> {
    let source = source_path();
    let view = View {
        root,
        directory: Some(&source),
    };
    find_artifacts(view, spec)
}

async fn expand_name(work: &mut Work<'_>, name: &str) -> Result<Result<String, String>, Fault> {
    let why = match work.scene.expand(name, work.log).await? {
        Expansion::Word(word) => match String::from_utf8(word) {
            Ok(name) if work.holds_secret(&name) => "it holds a secret".to_owned(),
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
