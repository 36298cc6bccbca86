//! What is in the cache, whether it is whole, and making room.

use std::process::ExitCode;

use cache::{
    download::{fetch_outline, fetch_tree},
    progress::Progress,
    verify::verify_tree,
};
use protocol::{message::cache::keys, time::WallTime};

use super::with_cache;
use crate::{
    args::{GcArgs, LsArgs, ReadArgs, VerifyArgs, WhatArgs},
    clock,
    command::Context,
    error::{CommandError, exit},
    render::{self, bar},
};

/// `grange cache ls`.
pub(super) async fn ls(args: &LsArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.read.farm, context, async |cache| {
        if let Some(what) = &args.what {
            let (_, _, tree) = cache.tree(what).await?;
            let outline = fetch_outline(&cache.client, &tree).await;
            let (tree, attributes) = outline.map_err(CommandError::farm)?;
            return render::cache::entries_of(&tree, &attributes, args.read.json);
        }
        let prefix = if args.all { "" } else { keys::SAVED };
        let listed = cache.client.list_entries(&cache.namespace, prefix).await;
        let mut listed = listed.map_err(CommandError::farm)?;
        for (key, _) in &mut listed {
            if !args.all
                && let Some(name) = keys::saved_name(key)
            {
                *key = name.to_owned();
            }
        }
        render::cache::listed(&listed, args.read.json)
    })
    .await
}

/// `grange cache stat`.
pub(super) async fn stat(args: &WhatArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.read.farm, context, async |cache| {
        let (key, entry, tree) = cache.tree(&args.what).await?;
        let contents = fetch_tree(&cache.client, &tree).await;
        let contents = contents.map_err(CommandError::farm)?;
        render::cache::stat(&key, &entry, &contents, args.read.json)
    })
    .await
}

/// `grange cache verify`.
pub(super) async fn verify(args: &VerifyArgs, context: &Context) -> Result<ExitCode, CommandError> {
    with_cache(&args.read.farm, context, async |cache| {
        let mut wanted = args.what.clone();
        if wanted.is_empty() {
            let listed = cache
                .client
                .list_entries(&cache.namespace, keys::SAVED)
                .await;
            let listed = listed.map_err(CommandError::farm)?;
            let names = listed.iter().filter_map(|(key, _)| keys::saved_name(key));
            wanted = names.map(str::to_owned).collect();
        }
        let mut code = ExitCode::SUCCESS;
        for what in &wanted {
            // One that is damaged, or has gone meanwhile, says nothing of the next one.
            let checked = match cache.tree(what).await {
                Err(error) => Err(error),
                Ok((_, _, tree)) => {
                    let progress = Progress::default();
                    let verifying = verify_tree(&cache.client, &tree, &progress);
                    let verified = bar::show("verifying", &progress, verifying).await;
                    verified.map_err(CommandError::farm)
                }
            };
            if checked.is_err() {
                code = ExitCode::from(exit::FARM);
            }
            render::cache::verified(what, &checked, args.read.json)?;
        }
        Ok(code)
    })
    .await
}

/// `grange cache gc`.
pub(super) async fn gc(args: &GcArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.farm, context, async |cache| {
        let mut deleted = 0;
        if let Some(unused) = args.unused {
            let millis = u64::try_from(unused.as_millis()).unwrap_or(u64::MAX);
            let before = WallTime(clock::wall().0.saturating_sub(millis));
            let listed = cache
                .client
                .list_entries(&cache.namespace, keys::SAVED)
                .await;
            for (key, summary) in listed.map_err(CommandError::farm)? {
                if summary.used < before {
                    let gone = cache.client.delete_entries(&cache.namespace, &key).await;
                    deleted += gone.map_err(CommandError::farm)?;
                }
            }
        }
        let collected = cache.client.collect().await;
        let (evicted, chunks, bytes) = collected.map_err(CommandError::farm)?;
        render::cache::collected(deleted + evicted, chunks, bytes);
        Ok(())
    })
    .await
}

/// `grange cache stats`.
pub(super) async fn stats(args: &ReadArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.farm, context, async |cache| {
        let stats = cache.client.stats().await.map_err(CommandError::farm)?;
        render::cache::stats(&stats, args.json)
    })
    .await
}
