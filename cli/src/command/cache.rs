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
    materialize::{Materialize, Owner, RootMode, beside, materialize},
    progress::Progress,
    put::put,
};
use protocol::{
    access::Trust,
    blob::TreeRef,
    digest::{Digest, hex},
    message::cache::{Entry, EntryKey, PutOutcome, keys},
    name::{Namespace, Team},
    time::WallTime,
};

pub(crate) use self::explain::{Changes, Explanation, Lookup, Near};
use crate::{
    args::{CacheCommand, FarmArgs, GetArgs, PutArgs},
    command::{Context, leftovers, project, serve},
    error::{CommandError, NotInCache},
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
        let found = self.client.look_at_entry(self.key(path)).await;
        found.map_err(CommandError::of_cache)
    }

    /// Has a directory stand under `name`; says whether another one that is trusted further stays there.
    async fn save(&self, name: &str, tree: &TreeRef) -> Result<Saved, CommandError> {
        let path = keys::saved(name);
        let entry = Entry {
            blobs: vec![],
            trees: vec![tree.clone()],
            outlines: vec![],
            // The cache knows better.
            trust: Trust::Untrusted,
            team: self.team.clone(),
            written: WallTime(0),
        };
        let put = self.client.put_entry(self.key(path.clone()), entry, true);
        if put.await.map_err(CommandError::of_cache)? == PutOutcome::Stored {
            return Ok(Saved::There);
        }
        // An equal one stays as well.
        let there = self.entry(path).await?;
        let mut trees = there.iter().flat_map(|entry| &entry.trees);
        let is_same = trees.any(|there| there.tree.digest == tree.tree.digest);
        Ok(if is_same { Saved::There } else { Saved::Kept })
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
                && keys::check(&path).is_ok()
                && let Some(entry) = self.entry(path.clone()).await?
            {
                return Ok((path, entry));
            }
        }
        let missing = || {
            let what = what.to_owned();
            CommandError::usage(NotInCache { what })
        };
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(missing().hint("`grange cache ls` lists what was put"));
        }
        let beginning = format!("{}{name}", keys::SAVED);
        let listed = self.client.list_entries(&self.namespace, &beginning).await;
        let mut listed = listed.map_err(CommandError::of_cache)?;
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

/// Under what a directory stands that was put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Saved {
    /// Under the name that it was given.
    There,
    /// Not there: what is there is trusted further, and stays.
    Kept,
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

/// Checks that a directory can be put under `name`, before anything is sent.
fn check_name(name: &str) -> Result<(), CommandError> {
    if name.is_empty() || is_digest(name) || name.split('/').any(|word| word == "=") {
        let error = anyhow!("`{name}` cannot be a key: it is empty, a digest, or has a word `=`");
        return Err(CommandError::usage(error));
    }
    keys::check(&keys::saved(name))
        .with_context(|| format!("`{name}` cannot be a key"))
        .map_err(CommandError::usage)
}

/// `grange cache put`.
async fn put_directory(args: &PutArgs, context: &Context) -> Result<(), CommandError> {
    if let Some(key) = &args.key {
        check_name(key)?;
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
        let put = put.map_err(CommandError::of_put)?;
        let digest = hex(put.tree.tree.digest.hash());
        // Where another is kept, it is one of the same digest.
        cache.save(&digest, &put.tree).await?;
        if let Some(key) = &args.key
            && cache.save(key, &put.tree).await? == Saved::Kept
        {
            return Err(kept(args, (key, &digest)));
        }
        let wire = cache.client.datagram_bytes();
        render::cache::was_put(&put, (args.key.as_deref(), wire), args.read.json)
    })
    .await
}

/// What there is to say of a directory that was put, but not under its key.
fn kept(args: &PutArgs, (key, digest): (&str, &str)) -> CommandError {
    let error = anyhow!(
        "`{}` cannot have the key `{key}`: what has it is trusted further, and stays; \
         the directory is in the cache under its digest, {digest}",
        args.directory.display()
    );
    CommandError::usage(error).hint("put it under another key")
}

/// `grange cache get`.
async fn get_directory(args: &GetArgs, context: &Context) -> Result<(), CommandError> {
    with_cache(&args.read.farm, context, async |cache| {
        let (key, _, tree) = cache.tree(&args.what).await?;
        // To find it was to look only.
        let used = cache.client.get_entry(cache.key(key)).await;
        used.map_err(CommandError::of_cache)?;
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
        let moved = moved.map_err(CommandError::of_get)?;
        let wire = cache.client.datagram_bytes();
        render::cache::was_got(&tree, (&moved, wire), args.read.json)
    })
    .await
}

#[cfg(test)]
mod tests {
    use protocol::message::cache::KEY_BYTES_MAX;

    use super::*;

    #[test]
    fn a_name_that_no_directory_can_have_is_refused_before_anything_is_sent() {
        let longest = KEY_BYTES_MAX - keys::saved("").len();
        for name in ["mine", "mine/main", "a=b/..c", &"k".repeat(longest)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let digest = hex(Digest::of(b"").hash());
        let long = "k".repeat(longest + 1);
        for name in ["", "a/../b", ".", "a/=/b", &digest, &long] {
            assert!(
                check_name(name).is_err_and(|error| !error.is_farm()),
                "{name}"
            );
        }
    }
}
