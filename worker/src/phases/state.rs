//! A unit's state between two phases: where it comes from, and where it is kept.

use std::path::Path;

use cache::{client::CacheClient, download::fetch_blob, upload::upload_blob};
use protocol::{
    blob::Blob,
    digest::Digest,
    message::{cache::keys, work::JobInput},
    snapshot::{LAYERS_MAX, Snapshot, VARIABLES_MAX},
    variable::is_carried,
};

use super::Work;
use crate::{
    fault::{Fault, OrFault as _},
    ground::Ground,
    sandbox::Carried,
};

/// How long a snapshot's bytes may be: thousands of variables, some of them long.
const SNAPSHOT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is sealed as a state opens as nothing else.
const CONTEXT: &[u8] = b"grange snapshot 1";

/// Where the state of a unit at level `host` is, below its directory.
const STATE: &str = "state";

/// The state that an attempt starts from.
///
/// # Errors
///
/// If it cannot be had, or is of another isolation level.
pub(super) async fn load(work: &Work<'_>, ground: &Ground) -> Result<Snapshot, Fault> {
    let bytes = match (&work.assignment.input, ground) {
        (JobInput::Snapshot(blob), Ground::Namespace) => {
            let request =
                async |client: CacheClient| fetch_blob(&client, blob, SNAPSHOT_BYTES_MAX).await;
            let fetched = work.cache.with("fetch the snapshot", request).await;
            fetched.map_err(Fault::of_the_state)?
        }
        (JobInput::Local, Ground::Host { unit, .. }) => {
            let read = tokio::fs::read(unit.join(STATE)).await;
            read.or_fault("read the state that the phase before left on this worker")?
        }
        (JobInput::Source(_) | JobInput::Nothing, _) => {
            return Err(Fault::new(
                "find the state of the unit",
                "there is only a source",
            ));
        }
        (JobInput::Snapshot(_), Ground::Host { .. }) | (JobInput::Local, Ground::Namespace) => {
            let reason = "it was left at another isolation level than this worker's";
            return Err(Fault::new("use the state of the unit", reason));
        }
    };
    let snapshot = read(work, &bytes)?;
    if matches!(ground, Ground::Namespace) && snapshot.base != work.site.base {
        let reason = format!(
            "it lies over base {}, and this worker's is {}",
            snapshot.base, work.site.base
        );
        return Err(Fault::new("use the snapshot", reason));
    }
    Ok(snapshot)
}

/// What the bytes of a state say: those of a unit with secrets are sealed, and refer to them.
fn read(work: &Work<'_>, bytes: &[u8]) -> Result<Snapshot, Fault> {
    let Some(secrets) = &work.secrets else {
        return Snapshot::decode(bytes).or_fault("read the snapshot");
    };
    let opened = secrets.open(CONTEXT, bytes).or_fault("open the snapshot")?;
    let mut snapshot = Snapshot::decode(&opened).or_fault("read the snapshot")?;
    let revealed = secrets.reveal(&mut snapshot.variables);
    revealed.or_fault("put secrets into the variables")?;
    Ok(snapshot)
}

/// The bytes that [`read`] reads.
fn written(work: &Work<'_>, snapshot: &Snapshot) -> Vec<u8> {
    let Some(secrets) = &work.secrets else {
        return snapshot.encode();
    };
    let mut snapshot = snapshot.clone();
    secrets.hide(&mut snapshot.variables);
    // A secret may be in the variables in other forms, and in the directory.
    secrets.seal(CONTEXT, &snapshot.encode())
}

/// Stores the state that an attempt leaves; returns the snapshot for the next phase, if that may run
/// anywhere.
///
/// # Errors
///
/// If it cannot be stored.
pub(super) async fn store(
    work: &Work<'_>,
    ground: &Ground,
    snapshot: &Snapshot,
) -> Result<Option<Blob>, Fault> {
    check_limits(snapshot)?;
    let bytes = written(work, snapshot);
    match ground {
        Ground::Host { unit, .. } => {
            let written = replace(&unit.join(STATE), &bytes).await;
            written.or_fault("keep the state of the unit")?;
            Ok(None)
        }
        Ground::Namespace => {
            if let JobInput::Snapshot(input) = &work.assignment.input
                && input.digest == Digest::of(&bytes)
            {
                // The entry of the phase before holds it.
                return Ok(Some(input.clone()));
            }
            let request = async |client: CacheClient| upload_blob(&client, bytes.clone()).await;
            let blob = work.cache.with("store the snapshot", request).await?;
            let trees = snapshot.layers.iter().map(|layer| layer.tree.clone());
            let named = (vec![blob.clone()], trees.collect(), Vec::new());
            let key = keys::snapshot(work.assignment.job, work.assignment.attempt);
            let put = work.put_entry(key, named, true).await;
            put.map_err(Fault::of_the_state)?;
            Ok(Some(blob))
        }
    }
}

/// What the next phase starts from when this one changed nothing.
pub(super) fn unchanged(work: &Work<'_>) -> Option<Blob> {
    match &work.assignment.input {
        JobInput::Snapshot(blob) => Some(blob.clone()),
        JobInput::Source(_) | JobInput::Local | JobInput::Nothing => None,
    }
}

/// Puts what commands left into the state; what depends on the occasion is not carried.
pub(super) fn carry(snapshot: &mut Snapshot, carried: Carried) {
    let variables = carried.variables.into_iter();
    snapshot.variables = variables.filter(|(name, _)| is_carried(name)).collect();
    snapshot.directory = carried.directory;
}

fn check_limits(snapshot: &Snapshot) -> Result<(), Fault> {
    let over = |what: &str, count: usize, limit: u64| {
        let reason = format!("there are {count} {what}, at most {limit} can be kept");
        Err(Fault::new("keep the state of the unit", reason))
    };
    if VARIABLES_MAX < snapshot.variables.len() as u64 {
        return over("variables", snapshot.variables.len(), VARIABLES_MAX);
    }
    if LAYERS_MAX < snapshot.layers.len() as u64 {
        return over("layers", snapshot.layers.len(), LAYERS_MAX);
    }
    Ok(())
}

/// Writes a file whole or not at all.
async fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    tokio::fs::write(&aside, bytes).await?;
    tokio::fs::rename(&aside, path).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_depends_on_the_occasion_is_not_carried() {
        let mut snapshot = Snapshot {
            base: Digest::of(b"base"),
            layers: Vec::new(),
            variables: BTreeMap::from([("GONE".to_owned(), b"1".to_vec())]),
            directory: b"/".to_vec(),
        };
        let set = ["MY_VERSION", "CODEBUILD_BUILD_ID", "PWD", "CI"];
        let carried = Carried {
            variables: set.map(|name| (name.to_owned(), b"x".to_vec())).into(),
            directory: b"/opt".to_vec(),
        };
        carry(&mut snapshot, carried);
        let left: Vec<_> = snapshot.variables.keys().collect();
        assert_eq!(left, ["CI", "MY_VERSION"]);
        assert_eq!(snapshot.directory, b"/opt");
    }
}
