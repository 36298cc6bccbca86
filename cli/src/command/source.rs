//! What is handed in: the buildspec, checked before anything moves, and the source tree.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use buildspec::{PlanRequest, Severity};
use protocol::{
    build::BuildId,
    message::client::{BUILDSPEC_BYTES_MAX, SubmitBuild},
    name::ProjectName,
};

use crate::{args::BuildArgs, error::CommandError, render};

/// Reads and checks the buildspec, saying all that is wrong with it.
///
/// # Errors
///
/// If it is not there, or has mistakes.
pub(crate) fn checked_buildspec(args: &BuildArgs) -> Result<String, CommandError> {
    let path = args.directory.join(&args.buildspec);
    let text = read_buildspec(&path)?;
    let parsed = buildspec::parse(&text);
    for diagnostic in &parsed.diagnostics {
        render::block(&buildspec::render(&text, &args.buildspec, diagnostic));
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
    let request = PlanRequest {
        variables: args.variables.iter().cloned().collect(),
        batch: args.batch,
        no_cache: args.no_cache,
        ..PlanRequest::default()
    };
    match buildspec::plan(&spec, &request) {
        Ok(_) => Ok(text),
        Err(error) => {
            for diagnostic in error.diagnostics() {
                render::block(&buildspec::render(&text, &args.buildspec, &diagnostic));
            }
            let error = anyhow::Error::new(error).context(format!(
                "`{}` cannot be run; nothing was submitted",
                path.display()
            ));
            Err(CommandError::usage(error))
        }
    }
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
    let directory: PathBuf = fs::canonicalize(&args.directory)
        .with_context(|| {
            format!(
                "failed to find the source tree `{}`",
                args.directory.display()
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

/// What to submit, but for the source.
pub(crate) fn submission(
    args: &BuildArgs,
    project: ProjectName,
    buildspec: String,
    source: (protocol::blob::TreeRef, Option<String>),
    id: BuildId,
) -> SubmitBuild {
    SubmitBuild {
        id,
        project,
        buildspec_path: args.buildspec.clone(),
        buildspec,
        source: source.0,
        source_version: source.1,
        variables: args.variables.iter().cloned().collect(),
        batch: args.batch,
        reruns: args.reruns.iter().copied().collect(),
        no_cache: args.no_cache,
        priority: args.priority,
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
