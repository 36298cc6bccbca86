//! `grange cache …`: directories put into the cache and got out of it by hand, and what the cache knows.

mod explain;
mod look;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, anyhow};
use cache::{
    capture::Dialect,
    capture::Subject,
    client::CacheClient,
    index::LocalIndex,
    materialize::{Materialize, MaterializeError, Owner, RootMode, beside, materialize},
    progress::Progress,
    put::put,
};
use protocol::{
    access::Trust,
    blob::TreeRef,
    digest::{Digest, hex},
    message::cache::{Entry, EntryKey, keys},
    name::{Namespace, Team},
    time::WallTime,
};

pub(crate) use self::explain::{Changes, Explanation, Lookup, Near};
use crate::{
    args::{CacheCommand, FarmArgs, GetArgs, PutArgs},
    command::{Context, leftovers, project, serve},
    error::CommandError,
    farm::Farm,
    reach::Purpose,
    render::{self, bar},
};

/// Runs one of them.
///
/// # Errors
///
/// If the farm or its cache cannot be reached, or does not do what was asked.
pub(super) async fn run(
    command: CacheCommand,
    context: &Context,
) -> Result<ExitCode, CommandError> {
    match command {
        CacheCommand::Serve(args) => serve::cache(args, context).await?,
        CacheCommand::Put(args) => put_directory(&args, context).await?,
        CacheCommand::Get(args) => get_directory(&args, context).await?,
        CacheCommand::Ls(args) => look::ls(&args, context).await?,
        CacheCommand::Stat(args) => look::stat(&args, context).await?,
        CacheCommand::Verify(args) => return look::verify(&args, context).await,
        CacheCommand::Gc(args) => look::gc(&args, context).await?,
        CacheCommand::Stats(args) => look::stats(&args, context).await?,
        CacheCommand::Explain(args) => explain::run(&args, context).await?,
        CacheCommand::Invalidate { project, farm } => {
            project::invalidate_caches(project, &farm, context).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The farm's cache, in the name of one's team.
struct Cache {
    client: CacheClient,
    team: Team,
    namespace: Namespace,
}

impl Cache {
    /// Of a farm.
    async fn of(farm: &Farm) -> Result<Self, CommandError> {
        let (client, info) = farm.cache().await?;
        Ok(Self {
            client,
            namespace: info.team.clone().into(),
            team: info.team,
        })
    }

    fn key(&self, path: String) -> EntryKey {
        EntryKey {
            namespace: self.namespace.clone(),
            path,
        }
    }

    async fn entry(&self, path: String) -> Result<Option<Entry>, CommandError> {
        let found = self.client.get_entry(self.key(path)).await;
        found.map_err(CommandError::farm)
    }

    /// The entry that somebody means by `what`, with its key: a directory that was put, by its key, its
    /// digest or a beginning of that; or any other entry, by its full key.
    async fn find(&self, what: &str) -> Result<(String, Entry), CommandError> {
        // A digest ends in its length, which names nothing.
        let name = match what.parse::<Digest>() {
            Ok(digest) => hex(digest.hash()),
            Err(_) => what.to_owned(),
        };
        for path in [keys::saved(&name), name.clone()] {
            if !name.is_empty()
                && let Some(entry) = self.entry(path.clone()).await?
            {
                return Ok((path, entry));
            }
        }
        let missing = || CommandError::usage(anyhow!("the cache has no `{what}` that is whole"));
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(missing().hint("`grange cache ls` lists what was put"));
        }
        let beginning = format!("{}{name}", keys::SAVED);
        let listed = self.client.list_entries(&self.namespace, &beginning).await;
        let mut listed = listed.map_err(CommandError::farm)?;
        listed.retain(|(key, _)| keys::saved_name(key).is_some_and(is_digest));
        match listed.as_slice() {
            [] => Err(missing().hint("`grange cache ls` lists what was put")),
            [(key, _)] => match self.entry(key.clone()).await? {
                Some(entry) => Ok((key.clone(), entry)),
                None => Err(missing()),
            },
            _ => {
                let error = anyhow!("{} digests begin with `{what}`", listed.len());
                Err(CommandError::usage(error).hint("write more of it"))
            }
        }
    }

    /// The tree of what [`find`](Self::find) finds, with its key.
    async fn tree(&self, what: &str) -> Result<(String, Entry, TreeRef), CommandError> {
        let (key, entry) = self.find(what).await?;
        match entry.trees.first().cloned() {
            Some(tree) => Ok((key, entry, tree)),
            None => Err(CommandError::usage(anyhow!("`{key}` is no directory"))),
        }
    }
}

/// Whether a name is the hash of a digest.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Has `work` done with the farm's cache.
async fn with_cache<T>(
    farm: &FarmArgs,
    context: &Context,
    work: impl AsyncFnOnce(&Cache) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    context
        .with_farm(farm, Purpose::Ask, async |reached| {
            let cache = Cache::of(&reached.farm).await?;
            work(&cache).await
        })
        .await
}

/// `grange cache put`.
async fn put_directory(args: &PutArgs, context: &Context) -> Result<(), CommandError> {
    if let Some(key) = &args.key
        && (key.is_empty() || is_digest(key) || key.split('/').any(|word| word == "="))
    {
        let error = anyhow!("`{key}` cannot be a key: it is empty, a digest, or has a word `=`");
        return Err(CommandError::usage(error));
    }
    let root = fs::canonicalize(&args.directory)
        .with_context(|| format!("failed to find `{}`", args.directory.display()))
        .map_err(CommandError::usage)?;
    let subject = Subject::all(root);
    let index = LocalIndex::new(&context.places.indices(), &subject);
    let index = (!args.reread).then_some(index);
    with_cache(&args.read.farm, context, async |cache| {
        let progress = Progress::default();
        let putting = put(&cache.client, subject, index, &progress);
        let put = bar::show("putting", &progress, putting).await;
        let put = put.map_err(CommandError::farm)?;
        let digest = hex(put.tree.tree.digest.hash());
        for name in [Some(&digest), args.key.as_ref()].into_iter().flatten() {
            let key = cache.key(keys::saved(name));
            let entry = Entry {
                blobs: vec![],
                trees: vec![put.tree.clone()],
                outlines: vec![],
                // The cache knows better.
                trust: Trust::Untrusted,
                team: cache.team.clone(),
                written: WallTime(0),
            };
            let done = cache.client.put_entry(key, entry, true).await;
            done.map_err(CommandError::farm)?;
        }
        let wire = cache.client.datagram_bytes();
        render::cache::was_put(&put, (args.key.as_deref(), wire), args.read.json)
    })
    .await
}

/// `grange cache get`.
async fn get_directory(args: &GetArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.read.farm, context, async |cache| {
        let (_, _, tree) = cache.tree(&args.what).await?;
        leftovers::clear(beside(&args.directory)).await;
        let progress = Progress::default();
        let options = Materialize {
            dialect: Dialect::Plain,
            owner: if args.owners { Owner::Keep } else { Owner::Own },
            default_modified: None,
            root: RootMode::Masked,
            progress: progress.clone(),
        };
        let getting = materialize(&cache.client, &tree, &args.directory, options);
        let moved = bar::show("getting", &progress, getting).await;
        let moved = moved.map_err(|error| match error {
            MaterializeError::Exists { .. } => CommandError::usage(error),
            error => CommandError::farm(error),
        })?;
        let wire = cache.client.datagram_bytes();
        render::cache::was_got(&tree, (&moved, wire), args.read.json)
    })
    .await
}
