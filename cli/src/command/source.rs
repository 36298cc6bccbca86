//! What is handed in: the buildspec, checked before anything moves, and the source tree.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use buildspec::{BuildSpec, PlanError, PlanRequest, Severity};
use protocol::{
    blob::TreeRef,
    build::BuildId,
    message::client::{BUILDSPEC_BYTES_MAX, SubmitBuild},
    name::ProjectName,
    project::{Project, ProjectSource, is_inline},
};

use crate::{args::BuildArgs, error::CommandError, render};

/// What the buildspec is called where nobody says otherwise.
const BUILDSPEC: &str = "buildspec.yml";

/// Where the source tree is.
pub(crate) fn directory(args: &BuildArgs) -> &Path {
    args.directory.as_deref().unwrap_or_else(|| Path::new("."))
}

/// The buildspec that was named, or the one of the usual name.
pub(crate) fn named(args: &BuildArgs) -> &str {
    args.buildspec.as_deref().unwrap_or(BUILDSPEC)
}

/// Whether the farm fetches the source: nobody has named a directory, and the project has a repository.
pub(crate) fn is_fetched(args: &BuildArgs, project: Option<&Project>) -> bool {
    let has_repository = project.is_some_and(|of| of.source != ProjectSource::Upload);
    args.directory.is_none() && (has_repository || args.source_version.is_some())
}

/// The text of the buildspec that goes along with an uploaded source; empty: the project has it. `found` is
/// the one in the source tree, if that was looked at.
///
/// # Errors
///
/// If it is not there, or has mistakes.
pub(crate) fn to_submit(
    args: &BuildArgs,
    project: Option<&Project>,
    found: Option<String>,
) -> Result<String, CommandError> {
    let (path, inline) = project.map_or((None, None), Project::buildspec);
    if args.buildspec.is_none() && inline.is_some() {
        return Ok(String::new());
    }
    let path = args.buildspec.as_deref().or(path);
    match (found, path) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(path)) if path == named(args) => Ok(found),
        (_, path) => checked_buildspec(args, path.unwrap_or(BUILDSPEC)),
    }
}

/// Reads and checks a buildspec of the source tree, saying all that is wrong with it.
///
/// # Errors
///
/// If it is not there, or has mistakes.
pub(crate) fn checked_buildspec(args: &BuildArgs, name: &str) -> Result<String, CommandError> {
    let path = directory(args).join(name);
    let (text, spec) = parsed(&path, name)?;
    let mut buildspecs = BTreeMap::new();
    let batch = spec.batch.as_ref().filter(|_| args.batch);
    for own in batch.into_iter().flat_map(|batch| batch.tasks.buildspecs()) {
        // The farm reads what is written into the task itself.
        if !is_inline(&own) {
            let (_, of_task) = parsed(&directory(args).join(&own), &own)?;
            buildspecs.insert(own, of_task);
        }
    }
    let request = PlanRequest {
        variables: args.variables.iter().cloned().collect(),
        batch: args.batch,
        no_cache: args.no_cache,
        buildspecs,
        ..PlanRequest::default()
    };
    match buildspec::plan(&spec, &request) {
        Ok(_) => Ok(text),
        // What the project says may put these right, and the farm knows it.
        Err(PlanError::TaskBuildspecs { .. }) if args.project.is_some() => Ok(text),
        Err(error) => {
            for diagnostic in error.diagnostics() {
                render::block(&buildspec::render(&text, name, &diagnostic));
            }
            let error = anyhow::Error::new(error).context(format!(
                "`{}` cannot be run; nothing was submitted",
                path.display()
            ));
            Err(CommandError::usage(error))
        }
    }
}

/// Reads and parses a buildspec, saying all that is wrong with it.
fn parsed(path: &Path, name: &str) -> Result<(String, BuildSpec), CommandError> {
    let text = read_buildspec(path)?;
    let parsed = buildspec::parse(&text);
    for diagnostic in &parsed.diagnostics {
        render::block(&buildspec::render(&text, name, diagnostic));
    }
    let Some(spec) = parsed.spec else {
        let errors = parsed
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error);
        let count = match errors.count() {
            1 => "a mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        let error = anyhow!("`{}` has {count}; nothing was submitted", path.display());
        return Err(CommandError::usage(error));
    };
    Ok((text, spec))
}

fn read_buildspec(path: &Path) -> Result<String, CommandError> {
    let shown = path.display();
    let bytes = read_bounded(path, BUILDSPEC_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("failed to read the buildspec `{shown}`"));
    let bytes = bytes.map_err(|error| {
        CommandError::usage(error)
            .hint("`--buildspec FILE` names another, relative to the source tree")
    })?;
    let text = String::from_utf8(bytes)
        .with_context(|| format!("the buildspec `{shown}` is not text in UTF-8"));
    text.map_err(CommandError::usage)
}

/// Reads a file of at most `limit` bytes, whatever it says of its size: some never end.
///
/// # Errors
///
/// If it cannot be read, or has more.
pub(super) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path)?.take(limit as u64 + 1);
    file.read_to_end(&mut bytes)?;
    if limit < bytes.len() {
        let message = format!("it has more than {limit} bytes, the most that is allowed");
        return Err(io::Error::other(message));
    }
    Ok(bytes)
}

/// The project that a build belongs to: the one that was named, or the directory's name.
///
/// # Errors
///
/// If the directory's name is no project's name.
pub(crate) fn project(args: &BuildArgs) -> Result<ProjectName, CommandError> {
    if let Some(project) = &args.project {
        return Ok(project.clone());
    }
    let directory: PathBuf = fs::canonicalize(directory(args))
        .with_context(|| {
            format!(
                "failed to find the source tree `{}`",
                directory(args).display()
            )
        })
        .map_err(CommandError::usage)?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    name.parse()
        .with_context(|| format!("the directory's name `{name}` cannot name the project"))
        .map_err(|error| CommandError::usage(error).hint("name it with `--project NAME`"))
}

/// An id for a new build, which nobody can guess, and nobody has.
///
/// # Errors
///
/// If the system has no random numbers.
pub(crate) fn new_id() -> Result<BuildId, CommandError> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("failed to draw a build id")
        .map_err(CommandError::usage)?;
    Ok(BuildId::from_random(bytes))
}

/// What to submit. Without a source the farm fetches it, and finds the buildspec there.
pub(crate) fn submission(
    args: &BuildArgs,
    project: ProjectName,
    (buildspec, source): (String, Option<(TreeRef, Option<String>)>),
    id: BuildId,
) -> SubmitBuild {
    let (source, version) = match source {
        Some((tree, commit)) => (Some(tree), commit),
        None => (None, args.source_version.clone()),
    };
    SubmitBuild {
        id,
        project,
        buildspec_path: args.buildspec.clone().unwrap_or_default(),
        buildspec,
        source,
        source_version: version,
        variables: args.variables.iter().cloned().collect(),
        batch: args.batch,
        reruns: args.reruns.iter().copied().collect(),
        no_cache: args.no_cache,
        priority: args.priority,
        debug: args.debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random() {
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
