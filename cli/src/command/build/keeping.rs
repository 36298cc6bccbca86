//! While a build is followed, its source is kept whole at the cache: only who has it can bring a part again
//! that the cache finds damaged, and the farm tries again meanwhile.

use std::{convert::Infallible, future::pending, path::Path, time::Duration};

use cache::{
    client::{CacheClient, CacheError},
    download::fetch_tree,
    progress::Progress,
    source::capture_source,
    upload::upload_tree,
};
use protocol::{
    blob::{Blob, TreeRef},
    digest::Digest,
};

use crate::render;

/// How often it is looked at first: a worker tries again a second after it found a damaged part.
const LOOK_SOON: Duration = Duration::from_millis(400);
/// How often it is looked at so: until most builds have their source.
const LOOKS_SOON: u32 = 75;
/// How often it is looked at later: units that start again want their source, too.
const LOOK_LATER: Duration = Duration::from_secs(10);

/// Looks again and again whether all of `tree`, the source in `directory`, is at the cache, and brings what is
/// not. What cannot be done is left: the build says itself what it lacks.
pub(super) async fn keep_whole(
    client: CacheClient,
    tree: Option<&TreeRef>,
    (directory, with_git): (&Path, bool),
) -> Infallible {
    // What the farm has fetched itself it can fetch again.
    let Some(tree) = tree else {
        return pending().await;
    };
    let mut chunks = None;
    for look in 0_u32.. {
        tokio::time::sleep(if look < LOOKS_SOON {
            LOOK_SOON
        } else {
            LOOK_LATER
        })
        .await;
        if chunks.is_none() {
            chunks = all_chunks(&client, tree).await.ok();
        }
        let is_whole = match &chunks {
            Some(chunks) => is_whole(&client, chunks).await,
            None => Ok(false),
        };
        match is_whole {
            Ok(true) => {}
            Ok(false) if bring(&client, tree, (directory, with_git)).await => {
                render::note("the cache had lost a part of the source; it has it again");
            }
            // The directory has changed, or the cache has gone.
            Ok(false) | Err(_) => break,
        }
    }
    pending().await
}

/// All that a tree is kept in; an error if a part of that is lost, too.
async fn all_chunks(client: &CacheClient, tree: &TreeRef) -> Result<Vec<Digest>, ()> {
    let (_, _, layout) = fetch_tree(client, tree).await.map_err(drop)?;
    let mut chunks = layout.chunks;
    for Blob {
        chunks: outline, ..
    } in [&tree.tree, &tree.attributes, &tree.layout]
    {
        chunks.extend_from_slice(outline);
    }
    Ok(chunks)
}

async fn is_whole(client: &CacheClient, chunks: &[Digest]) -> Result<bool, CacheError> {
    Ok(client.find_missing(chunks).await?.is_empty())
}

/// Brings the source again; `false`: it is not what it was, or cannot be brought.
async fn bring(client: &CacheClient, tree: &TreeRef, (directory, with_git): (&Path, bool)) -> bool {
    let directory = directory.to_owned();
    let captured = tokio::task::spawn_blocking(move || capture_source(&directory, with_git)).await;
    let Ok(Ok((captured, _))) = captured else {
        return false;
    };
    let brought = upload_tree(client, captured, &Progress::default()).await;
    brought.is_ok_and(|(brought, _)| brought.tree.digest == tree.tree.digest)
}
