//! What is in the cache, whether it is whole, and making room.

use std::process::ExitCode;

use cache::{
    download::{fetch_outline, fetch_tree},
    progress::Progress,
    verify::{Verified, VerifyError, verify_tree},
};
use protocol::{message::cache::keys, time::WallTime};

use super::{Cache, with_cache};
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
            let (tree, attributes) = outline.map_err(CommandError::of_cache)?;
            return render::cache::entries_of(&tree, &attributes, args.read.json);
        }
        let prefix = if args.all { "" } else { keys::SAVED };
        let listed = cache.client.list_entries(&cache.namespace, prefix).await;
        let mut listed = listed.map_err(CommandError::of_cache)?;
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
        let contents = contents.map_err(CommandError::of_cache)?;
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
            let listed = listed.map_err(CommandError::of_cache)?;
            let names = listed.iter().filter_map(|(key, _)| keys::saved_name(key));
            wanted = names.map(str::to_owned).collect();
        }
        let mut code = ExitCode::SUCCESS;
        for what in &wanted {
            // One that is damaged, or has gone meanwhile, says nothing of the next one.
            let checked = check(cache, what).await?;
            if checked.is_err() {
                code = ExitCode::from(exit::FARM);
            }
            render::cache::verified(what, &checked, args.read.json)?;
        }
        Ok(code)
    })
    .await
}

/// What is known of a directory: that it is whole, or what of it is missing or damaged.
type Checked = Result<Verified, CommandError>;

/// Reads a directory and checks every byte.
///
/// # Errors
///
/// If nobody knows how it is, because the cache does not answer.
async fn check(cache: &Cache, what: &str) -> Result<Checked, CommandError> {
    let tree = match cache.tree(what).await {
        Ok((_, _, tree)) => tree,
        Err(error) if error.is_not_in_cache() => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    let progress = Progress::default();
    let verifying = verify_tree(&cache.client, &tree, &progress);
    judged(bar::show("verifying", &progress, verifying).await)
}

/// Tells damage, which is an answer, from what keeps the cache from answering.
fn judged(verified: Result<Verified, VerifyError>) -> Result<Checked, CommandError> {
    match verified {
        Ok(verified) => Ok(Ok(verified)),
        Err(error) if error.is_damage() => Ok(Err(CommandError::farm(error))),
        Err(error) => Err(CommandError::of_cache(error)),
    }
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
            for (key, summary) in listed.map_err(CommandError::of_cache)? {
                if summary.used < before {
                    let gone = cache.client.delete_entries(&cache.namespace, &key).await;
                    deleted += gone.map_err(CommandError::of_cache)?;
                }
            }
        }
        let collected = cache.client.collect().await;
        let (evicted, chunks, bytes) = collected.map_err(CommandError::of_cache)?;
        render::cache::collected(deleted + evicted, chunks, bytes);
        Ok(())
    })
    .await
}

/// `grange cache stats`.
pub(super) async fn stats(args: &ReadArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.farm, context, async |cache| {
        let stats = cache.client.stats().await.map_err(CommandError::of_cache)?;
        render::cache::stats(&stats, args.json)
    })
    .await
}

#[cfg(test)]
mod tests {
    use cache::{
        client::CacheError,
        download::{FetchError, TREE_BYTES_MAX},
    };
    use protocol::{
        digest::Digest,
        message::{Refusal, RefusalCode},
    };
    use transport::StreamError;

    use super::*;

    #[test]
    fn a_directory_is_damaged_only_if_the_cache_has_answered() {
        let digest = Digest::of(b"gone");
        let what = "read chunks";
        let missing = CacheError::MissingChunk { digest };
        let too_large = FetchError::TooLarge {
            digest,
            limit: TREE_BYTES_MAX,
        };
        for damage in [FetchError::from(missing), too_large] {
            let checked = judged(Err(damage.into())).unwrap();
            assert!(checked.unwrap_err().is_farm());
        }
        let source = StreamError::Reset;
        let lost = judged(Err(CacheError::Stream { what, source }.into())).unwrap_err();
        assert!(lost.is_farm() && lost.is_lost_connection());
        let source = Refusal::new(RefusalCode::Internal, "its disk");
        let failed = CacheError::Refused { what, source };
        assert!(judged(Err(failed.into())).unwrap_err().is_farm());
        assert_eq!(judged(Ok(Verified::default())).unwrap().unwrap().files, 0);
    }
}
