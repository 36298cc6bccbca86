//! `grange bench`: what a cache would do for a project.

use std::{fs, io};

use anyhow::Context as _;
use buildspec::BuildSpec;
use protocol::message::client::BUILDSPEC_BYTES_MAX;

use super::source::read_bounded;
use crate::{
    args::HitsArgs,
    error::CommandError,
    history::{self, History, Supposed},
    render,
};

/// `grange bench hits`.
///
/// # Errors
///
/// If the buildspec or the repository cannot be read, or the documents cannot be written.
pub(crate) async fn hits(args: HitsArgs) -> Result<(), CommandError> {
    let supposed = Supposed {
        bytes: args.entry_bytes,
        made_millis: args.entry_seconds.saturating_mul(1000),
    };
    let json = args.read.json;
    let found = tokio::task::spawn_blocking(move || find(&args, supposed)).await;
    let history = found.expect("replaying a history does not panic")?;
    render::hits(&history, supposed, json)
}

fn find(args: &HitsArgs, supposed: Supposed) -> Result<History, CommandError> {
    let spec = read(args)?;
    let commits = (args.repo.as_path(), args.commits);
    let history = history::replay(commits, &spec, supposed).map_err(CommandError::usage)?;
    if let Some(directory) = &args.documents {
        let failed = || format!("failed to write documents to `{}`", directory.display());
        let written = fs::create_dir_all(directory).and_then(|()| {
            for (name, text) in render::hits_documents(&history, supposed) {
                fs::write(directory.join(name), text)?;
            }
            Ok(())
        });
        written.with_context(failed).map_err(CommandError::usage)?;
    }
    Ok(history)
}

fn read(args: &HitsArgs) -> Result<BuildSpec, CommandError> {
    let path = args.repo.join(&args.buildspec);
    let text = read_bounded(&path, BUILDSPEC_BYTES_MAX)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .with_context(|| format!("failed to read `{}`", path.display()))
        .map_err(CommandError::usage)?;
    buildspec::parse(&text).spec.ok_or_else(|| {
        let error = anyhow::anyhow!("`{}` has mistakes", path.display());
        CommandError::usage(error).hint("`grange buildspec check` names them")
    })
}
