//! The client: what the cache does for those who use it, over one connection, or over several for bulk.
//!
//! A [`CacheClient`] speaks for one team. Every request is a stream of its own, so requests of one
//! client run side by side. Chunks are verified here, at the receiver.

pub(crate) mod ask;
mod bulk;
mod read;
mod unpack;
mod write;

use std::{net::SocketAddr, sync::Arc};

use protocol::{
    access::{Revocation, Role, SignedGrant},
    digest::Digest,
    message::{
        Refusal, RefusalCode,
        cache::{
            CacheReply, CacheRequest, DIGESTS_MAX, Entry, EntryKey, EntrySummary, PutOutcome,
            Stats, UseKey, UseRecord, UseStats,
        },
    },
    name::{Namespace, Team},
};
use tokio::task::JoinSet;
use tracing::debug;
use transport::{Client, ConnectError, Connection, StreamError};

use self::ask::ask_over;
pub use self::{read::ReadChunk, write::Written};
use crate::compression::DecodeChunkError;

/// How many requests of [`DIGESTS_MAX`] digests are on their way at once: as many as the cache looks up
/// at once for one connection.
const ASKED_AT_ONCE: usize = 2;

const FIND: &str = "find missing chunks";

/// Why the cache did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The cache said no. Its message says why, its code whether that will change.
    #[error("the cache refuses to {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        source: Refusal,
    },
    /// The connection or the stream broke: connect again, and repeat the request. Every request may be
    /// repeated.
    #[error("failed to {what} at the cache")]
    Stream {
        /// What was asked for.
        what: &'static str,
        /// What broke.
        source: StreamError,
    },
    /// The cache sent something that does not answer the request: it is damaged, or of another version
    /// than it said.
    #[error("the answer of the cache to the request to {what} makes no sense")]
    Answer {
        /// What was asked for.
        what: &'static str,
    },
    /// A chunk that was asked for is not there, or not for this team. Whoever made it has to make it
    /// again.
    #[error("chunk {digest} is not in the cache")]
    MissingChunk {
        /// Which.
        digest: Digest,
    },
    /// What came is not what was asked for. The chunk is to be treated as missing.
    #[error("chunk {digest} came corrupt from the cache")]
    Corrupt {
        /// Which.
        digest: Digest,
        /// What is wrong with it.
        source: DecodeChunkError,
    },
}

impl CacheError {
    /// Whether the cache has not what was asked for, and will not have it before somebody makes it again.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::MissingChunk { .. } | Self::Corrupt { .. } => true,
            Self::Refused { source, .. } => source.code == RefusalCode::FailedPrecondition,
            Self::Stream { .. } | Self::Answer { .. } => false,
        }
    }
}

/// Connects to the cache at `address`: as often as bulk makes use of on this machine, shared out among so many teams,
/// at least one, that each connect.
///
/// # Errors
///
/// If no connection comes about. That there are fewer than there could be is none.
///
/// # Cancel safety
///
/// The connections end.
pub async fn connect(
    client: &Client,
    address: SocketAddr,
    teams: usize,
) -> Result<Arc<[Connection]>, ConnectError> {
    let mut connections = vec![client.connect(address, Role::Cache).await?];
    for _ in 1..bulk::connections() / teams {
        match client.connect(address, Role::Cache).await {
            Ok(connection) => connections.push(connection),
            Err(error) => {
                debug!(cache = %address, %error, "one connection less for bulk");
                break;
            }
        }
    }
    Ok(connections.into())
}

/// A connection to the cache, or some, in the name of a team. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct CacheClient {
    /// Requests go over the first; many chunks over all of them.
    connections: Arc<[Connection]>,
    team: Team,
}

impl CacheClient {
    /// A client that reads and writes chunks for `team`. The cache checks that the connection may.
    pub fn new(connection: Connection, team: Team) -> Self {
        Self::with_bulk(Arc::new([connection]), team)
    }

    /// The same, which moves many chunks over all of `connections`: at least one, to the same cache, in the
    /// name of the same member.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn with_bulk(connections: Arc<[Connection]>, team: Team) -> Self {
        assert!(!connections.is_empty(), "a client has a connection");
        Self { connections, team }
    }

    fn connection(&self) -> &Connection {
        &self.connections[0]
    }

    /// For whom this client speaks.
    pub const fn team(&self) -> &Team {
        &self.team
    }

    /// How many bytes of datagrams its connections have sent and received, with all that belongs to them.
    pub fn datagram_bytes(&self) -> (u64, u64) {
        let all = self.connections.iter().map(Connection::datagram_bytes);
        all.fold((0, 0), |(sent, received), (more_sent, more_received)| {
            (sent + more_sent, received + more_received)
        })
    }

    /// Presents a grant: until it ends, its connections (all clones and all clients on them) may do what
    /// it says.
    ///
    /// # Errors
    ///
    /// If the cache does not accept it.
    pub async fn present(&self, grant: SignedGrant) -> Result<(), CacheError> {
        const WHAT: &str = "accept a grant";
        for connection in self.connections.iter() {
            let request = CacheRequest::PresentGrant(grant.clone());
            let CacheReply::Done = ask_over(connection, WHAT, request).await? else {
                return Err(CacheError::Answer { what: WHAT });
            };
        }
        Ok(())
    }

    /// Says all that was revoked, in place of what was said before: the cache refuses those certificates,
    /// and ends their connections. For the coordinator.
    ///
    /// # Errors
    ///
    /// If the cache refuses.
    pub async fn revoked(&self, revoked: &[Revocation]) -> Result<(), CacheError> {
        const WHAT: &str = "refuse what was revoked";
        let request = CacheRequest::Revoked(revoked.to_vec());
        match self.ask(WHAT, request).await? {
            CacheReply::Done => Ok(()),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// The indices, ascending, of those `chunks` that the team does not have at the cache. The others
    /// stay there for at least the cache's hold time.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn find_missing(&self, chunks: &[Digest]) -> Result<Vec<usize>, CacheError> {
        let mut asking = JoinSet::new();
        let mut missing = Vec::new();
        for (batch, chunks) in chunks.chunks(DIGESTS_MAX).enumerate() {
            if ASKED_AT_ONCE <= asking.len()
                && let Some(found) = asking.join_next().await
            {
                missing.extend(found.map_err(|_panicked| CacheError::Answer { what: FIND })??);
            }
            let (client, chunks) = (self.clone(), chunks.to_vec());
            asking.spawn(async move { client.find_batch(chunks, batch * DIGESTS_MAX).await });
        }
        while let Some(found) = asking.join_next().await {
            missing.extend(found.map_err(|_panicked| CacheError::Answer { what: FIND })??);
        }
        missing.sort_unstable();
        Ok(missing)
    }

    /// The indices of those `chunks` that are missing, counted from `first`.
    async fn find_batch(
        &self,
        chunks: Vec<Digest>,
        first: usize,
    ) -> Result<Vec<usize>, CacheError> {
        let count = chunks.len();
        let request = CacheRequest::FindMissing {
            team: self.team.clone(),
            chunks,
        };
        let CacheReply::Missing(found) = self.ask(FIND, request).await? else {
            return Err(CacheError::Answer { what: FIND });
        };
        let index = |index: u32| {
            let index = usize::try_from(index).ok();
            let index = index.filter(|&index| index < count);
            index.map(|index| first + index)
        };
        let missing: Option<Vec<usize>> = found.into_iter().map(index).collect();
        missing.ok_or(CacheError::Answer { what: FIND })
    }

    /// Writes an entry under `key`; everything that it names has to be there. What it says about trust,
    /// team and time counts only where the coordinator writes it.
    ///
    /// # Errors
    ///
    /// If the cache refuses: a chunk is missing, or this connection may not write there.
    pub async fn put_entry(
        &self,
        key: EntryKey,
        entry: Entry,
        replace: bool,
    ) -> Result<PutOutcome, CacheError> {
        self.put_made_entry(key, entry, replace, 0).await
    }

    /// As [`put_entry`](Self::put_entry), and says how long it took to make what the entry names, in
    /// milliseconds: the longer for its bytes, the longer the cache keeps it. Zero: not known.
    ///
    /// # Errors
    ///
    /// As `put_entry`.
    pub async fn put_made_entry(
        &self,
        key: EntryKey,
        entry: Entry,
        replace: bool,
        made_millis: u64,
    ) -> Result<PutOutcome, CacheError> {
        const WHAT: &str = "write an entry";
        let request = CacheRequest::PutEntry {
            key,
            entry,
            replace,
            made_millis,
        };
        match self.ask(WHAT, request).await? {
            CacheReply::Put(outcome) => Ok(outcome),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// The entry under `key`; `None` if there is none, not all of it is there, or it is not trusted
    /// enough. All chunks of what is given are held.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn get_entry(&self, key: EntryKey) -> Result<Option<Entry>, CacheError> {
        self.read_entry(key, true).await
    }

    /// As [`get_entry`](Self::get_entry), for who only looks: it is no use of the entry, for which it would be kept
    /// for longer.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn look_at_entry(&self, key: EntryKey) -> Result<Option<Entry>, CacheError> {
        self.read_entry(key, false).await
    }

    async fn read_entry(&self, key: EntryKey, is_use: bool) -> Result<Option<Entry>, CacheError> {
        const WHAT: &str = "read an entry";
        let request = CacheRequest::GetEntry { key, is_use };
        match self.ask(WHAT, request).await? {
            CacheReply::Entry(entry) => Ok(entry),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// All entries of `namespace` whose keys start with `prefix`, by key.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn list_entries(
        &self,
        namespace: &Namespace,
        prefix: &str,
    ) -> Result<Vec<(String, EntrySummary)>, CacheError> {
        const WHAT: &str = "list entries";
        let mut all: Vec<(String, EntrySummary)> = Vec::new();
        loop {
            let request = CacheRequest::ListEntries {
                namespace: namespace.clone(),
                prefix: prefix.to_owned(),
                after: all.last().map_or_else(String::new, |(key, _)| key.clone()),
            };
            let CacheReply::Entries { entries, more } = self.ask(WHAT, request).await? else {
                return Err(CacheError::Answer { what: WHAT });
            };
            // A page that brings nothing would be asked for again for ever.
            let stuck = more && entries.is_empty();
            all.extend(entries);
            if stuck {
                return Err(CacheError::Answer { what: WHAT });
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// Deletes the entries of `namespace` whose keys start with `prefix`; gives how many there were.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn delete_entries(
        &self,
        namespace: &Namespace,
        prefix: &str,
    ) -> Result<u64, CacheError> {
        const WHAT: &str = "delete entries";
        let request = CacheRequest::DeleteEntries {
            namespace: namespace.clone(),
            prefix: prefix.to_owned(),
        };
        match self.ask(WHAT, request).await? {
            CacheReply::Deleted(count) => Ok(count),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// Has the cache make room before it is time. Gives how many entries and chunks went, and what the
    /// chunks took, in bytes.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn collect(&self) -> Result<(u64, u64, u64), CacheError> {
        const WHAT: &str = "make room";
        match self.ask(WHAT, CacheRequest::Collect).await? {
            CacheReply::Collected {
                entries,
                chunks,
                bytes_stored,
            } => Ok((entries, chunks, bytes_stored)),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// Counts what a dependency cache did.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn record(&self, record: UseRecord) -> Result<(), CacheError> {
        const WHAT: &str = "count a use";
        match self.ask(WHAT, CacheRequest::Record(record)).await? {
            CacheReply::Done => Ok(()),
            _ => Err(CacheError::Answer { what: WHAT }),
        }
    }

    /// What the cache holds and has done.
    ///
    /// # Errors
    ///
    /// If the cache cannot be asked or refuses.
    pub async fn stats(&self) -> Result<Stats, CacheError> {
        const WHAT: &str = "tell its counts";
        let mut uses: Vec<UseStats> = Vec::new();
        loop {
            let after = uses.last().map(|last| UseKey {
                team: last.team.clone(),
                project: last.project.clone(),
                key: last.key.clone(),
            });
            let request = CacheRequest::Stats { after };
            let CacheReply::Stats(mut page) = self.ask(WHAT, request).await? else {
                return Err(CacheError::Answer { what: WHAT });
            };
            // A page that brings nothing would be asked for again for ever.
            if page.more && page.uses.is_empty() {
                return Err(CacheError::Answer { what: WHAT });
            }
            uses.append(&mut page.uses);
            if !page.more {
                page.uses = uses;
                return Ok(*page);
            }
        }
    }

    async fn ask(
        &self,
        what: &'static str,
        request: CacheRequest,
    ) -> Result<CacheReply, CacheError> {
        ask_over(self.connection(), what, request).await
    }
}
