//! Sources that are held at the cache for their build.

use cache::client::CacheError;
use protocol::{
    access::Trust,
    blob::TreeRef,
    build::BuildId,
    message::{
        Refusal,
        cache::{Entry, EntryKey, keys},
    },
    name::{Namespace, Team},
    report::Chain,
};
use tracing::warn;

use super::refusal;
use crate::{clock, farm::Farm};

/// The sources of a build, and whose they are.
pub(super) struct HeldSource {
    /// Where the results of the build go.
    pub(super) namespace: Namespace,
    /// Who may read them.
    pub(super) team: Team,
    /// How far they may be trusted.
    pub(super) trust: Trust,
    /// What they are; none: nothing is held.
    pub(super) trees: Vec<TreeRef>,
}

impl HeldSource {
    /// Puts the source under the key of `build` at the cache: from then on all of it is there, and stays.
    /// The cache checks that the team may read every chunk of it. `replace`: whether what is held under that
    /// key is not to be held any more.
    pub(super) async fn hold(
        self,
        farm: &Farm,
        build: BuildId,
        replace: bool,
    ) -> Result<(), Refusal> {
        if self.trees.is_empty() {
            return Ok(());
        }
        let client = farm.cache.client().await;
        let client = client.map_err(|error| refusal::unavailable(error.to_string()))?;
        let key = EntryKey {
            namespace: self.namespace,
            path: keys::source(build),
        };
        let entry = Entry {
            blobs: Vec::new(),
            trees: self.trees,
            outlines: Vec::new(),
            trust: self.trust,
            team: self.team,
            written: clock::wall(),
        };
        match client.put_entry(key, entry, replace).await {
            Ok(_) => Ok(()),
            // What the cache says of the source is for the client.
            Err(CacheError::Refused { source, .. }) => Err(source),
            Err(error) => {
                warn!(%build, error = %Chain(&error), "failed to hold a source at the cache");
                Err(refusal::unavailable(
                    "the cache did not answer the coordinator; nothing was submitted",
                ))
            }
        }
    }
}
