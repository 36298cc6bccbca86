//! `grange bench`: what a cache would do for a project.

use std::fs;

use anyhow::Context as _;

use crate::{
    args::HitsArgs,
    error::CommandError,
    history::{self, History, HistoryError, Supposed},
    render,
};

/// `grange bench hits`.
///
/// # Errors
///
/// If the buildspec or the repository cannot be read.
pub(crate) async fn hits(args: HitsArgs) -> Result<(), CommandError> {
    let supposed = Supposed {
        bytes: args.entry_bytes,
        made_millis: args.entry_seconds.saturating_mul(1000),
    };
    let json = args.read.json;
    let read = tokio::task::spawn_blocking(move || read(&args)).await;
    let history = read.expect("reading a history does not panic")?;
    render::hits(&history, supposed, json)
}

fn read(args: &HitsArgs) -> Result<History, CommandError> {
    let path = args.repo.join(&args.buildspec);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("failed to read `{}`", path.display()))
        .map_err(CommandError::usage)?;
    let parsed = buildspec::parse(&text);
    let Some(spec) = parsed.spec else {
        let error = anyhow::anyhow!("`{}` has mistakes", path.display());
        return Err(CommandError::usage(error));
    };
    let cache = spec.cache.map(|cache| cache.spec);
    let mut history = History::default();
    let usage = |error: HistoryError| CommandError::usage(error);
    for commit in history::commits(&args.repo, args.commits).map_err(usage)? {
        let files = history::files(&args.repo, &commit).map_err(usage)?;
        let key = cache.as_ref().map(|spec| history::expand_key(spec, &files));
        history.add(&files, key.transpose().map_err(usage)?);
    }
    Ok(history)
}
