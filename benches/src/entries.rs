//! Entries of a benchmark: chunks of noise from seeds, put under a key and looked up, as a worker does it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use ::cache::{
    client::{CacheClient, CacheError},
    compression::EncodedChunk,
};
use anyhow::Result;
use protocol::{
    access::{Role, Trust},
    blob::Blob,
    digest::Digest,
    message::{
        RefusalCode,
        cache::{Encoding, Entry, EntryKey},
    },
    name::{Namespace, Team},
    time::WallTime,
};
use tokio::sync::mpsc;
use transport::Client;

use crate::{
    cache::{credentials, team},
    noise::Noise,
};

/// How long a writer waits that was refused because all is held, and how often it comes again.
const REFUSED_WAIT: Duration = Duration::from_millis(100);
const TRIES_MAX: u32 = 3_000;

/// A client of the cache that may put entries, and how large its chunks are.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    pub(crate) client: CacheClient,
    chunk_bytes: u64,
}

/// What came of putting an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Put {
    /// The bytes of chunks that were there already.
    pub(crate) there: u64,
    /// What the others take in the store.
    pub(crate) stored: u64,
    /// How often it was refused because all was held.
    pub(crate) refused: u64,
}

impl Shelf {
    /// Connects, as the coordinator does, for the benchmark's team.
    ///
    /// # Errors
    ///
    /// If the cache does not answer.
    pub(crate) async fn dial(farm: &Path, address: SocketAddr, chunk_bytes: u64) -> Result<Self> {
        Self::dial_for(team(), (farm, address), chunk_bytes).await
    }

    /// The same for any team: what it puts is in that team's namespace.
    ///
    /// # Errors
    ///
    /// As [`dial`](Self::dial).
    pub(crate) async fn dial_for(
        team: Team,
        (farm, address): (&Path, SocketAddr),
        chunk_bytes: u64,
    ) -> Result<Self> {
        let client = Client::new(&credentials(farm, Role::Coordinator)?)?;
        let connection = client.connect(address, Role::Cache).await?;
        Ok(Self {
            client: CacheClient::new(connection, team),
            chunk_bytes,
        })
    }

    /// Where the entries of its team are.
    pub(crate) fn namespace(&self) -> Namespace {
        self.client.team().clone().into()
    }

    fn key(&self, path: &str) -> EntryKey {
        EntryKey {
            namespace: self.namespace(),
            path: path.to_owned(),
        }
    }

    /// The chunk of a seed.
    pub(crate) fn chunk(&self, seed: u64) -> EncodedChunk {
        let length = usize::try_from(self.chunk_bytes).expect("chunks are small");
        let body = Noise::new(seed).bytes(length);
        EncodedChunk {
            digest: Digest::of(&body),
            encoding: Encoding::Raw,
            body: body.into(),
        }
    }

    /// Looks up an entry; it is held from then on for a while.
    ///
    /// # Errors
    ///
    /// If the cache fails.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Entry>> {
        Ok(self.client.get_entry(self.key(path)).await?)
    }

    /// Writes what is missing of the chunks of these seeds, and puts the entry.
    ///
    /// # Errors
    ///
    /// If the cache fails, or refuses for ever.
    pub(crate) async fn put(&self, path: &str, seeds: &[u64], made_millis: u64) -> Result<Put> {
        let chunks: BTreeMap<Digest, EncodedChunk> = seeds
            .iter()
            .map(|&seed| self.chunk(seed))
            .map(|chunk| (chunk.digest, chunk))
            .collect();
        let digests: Vec<Digest> = chunks.keys().copied().collect();
        let blob = |&digest: &Digest| Blob {
            digest,
            chunks: vec![digest],
        };
        let entry = Entry {
            blobs: digests.iter().map(blob).collect(),
            trees: vec![],
            outlines: vec![],
            trust: Trust::Team,
            team: self.client.team().clone(),
            written: WallTime(0),
        };
        let mut put = Put::default();
        for try_number in 0..TRIES_MAX {
            let missing = self.client.find_missing(&digests).await?;
            if try_number == 0 {
                put.there = self.chunk_bytes * (digests.len() - missing.len()) as u64;
            }
            let wanted = missing.iter().map(|&at| chunks[&digests[at]].clone());
            match self.write(wanted.collect()).await {
                Ok(stored) => put.stored += stored,
                Err(error) if is_for_later(&error) => {
                    put.refused += 1;
                    tokio::time::sleep(REFUSED_WAIT).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let made = self
                .client
                .put_made_entry(self.key(path), entry.clone(), true, made_millis);
            match made.await {
                Ok(_) => return Ok(put),
                Err(error) if is_for_later(&error) => {
                    put.refused += 1;
                    tokio::time::sleep(REFUSED_WAIT).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("the cache refuses {path} for ever")
    }

    /// Writes chunks; gives what the new ones take in the store, in bytes.
    ///
    /// # Errors
    ///
    /// If the cache fails or refuses.
    pub(crate) async fn write(&self, chunks: Vec<EncodedChunk>) -> Result<u64, CacheError> {
        if chunks.is_empty() {
            return Ok(0);
        }
        let (send, receive) = mpsc::channel(16);
        let feed = async move {
            for chunk in chunks {
                if send.send(chunk).await.is_err() {
                    break;
                }
            }
        };
        let (written, ()) = tokio::join!(self.client.write_chunks(receive), feed);
        Ok(written?.new_bytes_stored)
    }

    /// How many of the chunks are not there, or not what they were, or were not to be had.
    pub(crate) async fn damaged(&self, digests: &[Digest]) -> usize {
        let (send, mut receive) = mpsc::channel(16);
        let count = async move {
            let mut right = 0;
            // The client verifies what it gives.
            while receive.recv().await.is_some() {
                right += 1;
            }
            right
        };
        let (_read, right) = tokio::join!(self.client.read_chunks(digests.to_vec(), send), count);
        digests.len() - right
    }
}

/// Whether it is worth coming again: all is held, or a chunk went before its entry came.
fn is_for_later(error: &CacheError) -> bool {
    let CacheError::Refused { source, .. } = error else {
        return false;
    };
    matches!(
        source.code,
        RefusalCode::ResourceExhausted | RefusalCode::FailedPrecondition
    )
}
