//! What is said to the cache: chunks in and out, entries, grants, counts.

pub mod keys;

use serde::{Deserialize, Serialize};

use crate::{
    access::{Revocation, SignedGrant, Trust},
    blob::{Blob, TreeRef},
    digest::Digest,
    job::CacheUse,
    name::{Namespace, ProjectName, Team},
    time::WallTime,
};

/// How many digests one request may name.
pub const DIGESTS_MAX: usize = 65_536;
/// How many chunks one report of damage may name: each is read whole.
pub const DAMAGE_REPORTED_MAX: usize = 16;
/// How many entries one listing gives.
pub const ENTRIES_LISTED_MAX: u32 = 10_000;

/// How many revocations a farm may have at a time: they end with the certificates that they are about,
/// and 10,000 of them take less than a frame.
pub const REVOCATIONS_MAX: usize = 10_000;

/// A request to the cache.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum CacheRequest {
    /// From now on this connection may do what the grant says. Answer: [`CacheReply::Done`].
    PresentGrant(SignedGrant),
    /// Which of these chunks does the team not have here? Those that are not named in the answer stay
    /// for at least the cache's hold time. Answer: [`CacheReply::Missing`].
    FindMissing {
        /// For whom.
        team: Team,
        /// At most [`DIGESTS_MAX`].
        chunks: Vec<Digest>,
    },
    /// Read chunks. Answer: for each, in the order in which they are ready, a frame with
    /// `Ok(`[`ChunkHeader`]`)` and its body; no reply before or after. A refusal may come in place of any
    /// of them, and is the last.
    ReadChunks {
        /// For whom.
        team: Team,
        /// At most [`DIGESTS_MAX`].
        chunks: Vec<Digest>,
    },
    /// Write chunks. The client sends for each a [`ChunkHeader`] frame (`index` counts from 0) and its
    /// body, then ends its side. Answer: [`CacheReply::Written`] when all are durable; or a refusal, and
    /// then none, some or all of them are.
    WriteChunks {
        /// For whom.
        team: Team,
    },
    /// Write an entry. Everything that it names has to be there. Answer: [`CacheReply::Put`].
    PutEntry {
        /// Under which key.
        key: EntryKey,
        /// What.
        entry: Entry,
        /// Whether an entry that is there already gives way.
        replace: bool,
        /// How long it took to make what the entry names, in milliseconds: what it saves whoever reads
        /// it. Zero: not known.
        made_millis: u64,
    },
    /// Read an entry, if all that it names is there. Answer: [`CacheReply::Entry`].
    GetEntry {
        /// Under which key.
        key: EntryKey,
        /// Whether it is read to be used, so that it is kept for longer, and not only looked at.
        is_use: bool,
    },
    /// List entries. Answer: [`CacheReply::Entries`].
    ListEntries {
        /// Of whom.
        namespace: Namespace,
        /// How their keys start.
        prefix: String,
        /// The key after which to go on; empty: from the first.
        after: String,
    },
    /// Delete the entries whose keys start so. Answer: [`CacheReply::Deleted`].
    DeleteEntries {
        /// Of whom.
        namespace: Namespace,
        /// How their keys start; not empty.
        prefix: String,
    },
    /// Count what a dependency cache did. Answer: [`CacheReply::Done`].
    Record(UseRecord),
    /// What was counted. Answer: [`CacheReply::Stats`].
    Stats {
        /// The uses behind which to go on; `None`: from the first.
        after: Option<UseKey>,
    },
    /// These chunks came as something else than they are: read them again, and set aside those that are
    /// damaged, so that they are missing until somebody brings them. Answer: [`CacheReply::SetAside`].
    ReportDamage {
        /// For whom.
        team: Team,
        /// At most [`DAMAGE_REPORTED_MAX`].
        chunks: Vec<Digest>,
    },
    /// From the coordinator: all that was revoked, at most [`REVOCATIONS_MAX`]; takes the place of what
    /// was said before. Answer: [`CacheReply::Done`].
    Revoked(Vec<Revocation>),
    /// Make room now, as is done every now and then: chunks go that nothing names and nobody holds, and
    /// entries while the cache takes more than its budget. Answer: [`CacheReply::Collected`].
    Collect,
}

/// The answer to a [`CacheRequest`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum CacheReply {
    /// It is done.
    Done,
    /// The indices, ascending, of the chunks that are not there.
    Missing(Vec<u32>),
    /// How many chunks are now durable that were written, and how many of these were new.
    Written {
        /// All chunks of the request.
        chunks: u64,
        /// Those that the store did not have.
        new: u64,
        /// What the new ones take on disk, in bytes.
        new_bytes_stored: u64,
    },
    /// What became of an entry.
    Put(PutOutcome),
    /// The entry, if it is there and complete.
    Entry(Option<Entry>),
    /// A page of entries, by key.
    Entries {
        /// Keys (without namespace) and what stands under them.
        entries: Vec<(String, EntrySummary)>,
        /// Whether there are more.
        more: bool,
    },
    /// How many entries were deleted.
    Deleted(u64),
    /// What was counted.
    Stats(Box<Stats>),
    /// How many chunks were set aside.
    SetAside(u64),
    /// What making room took away.
    Collected {
        /// How many entries.
        entries: u64,
        /// How many chunks.
        chunks: u64,
        /// What these took, in bytes.
        bytes_stored: u64,
    },
}

/// What became of an entry that was put.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PutOutcome {
    /// It stands under its key.
    Stored,
    /// What stands there stays: it is trusted further, it is equal, or nothing was to be replaced.
    Kept,
}

/// Where an entry stands.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct EntryKey {
    /// Whose it is.
    pub namespace: Namespace,
    /// The rest: words with `/` between them. At most 1,024 bytes.
    pub path: String,
}

/// How long [`EntryKey::path`] may be, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// What stands under a key. As long as it does, the chunks of everything it names stay.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// Blobs.
    pub blobs: Vec<Blob>,
    /// Trees, with all their files.
    pub trees: Vec<TreeRef>,
    /// Trees of which only the bytes of tree, attributes and layout are kept, without the files: what a
    /// dependency cache was made from.
    pub outlines: Vec<TreeRef>,
    /// How far it may be trusted. The server sets it, from who wrote it.
    pub trust: Trust,
    /// Who wrote it. The server sets it.
    pub team: Team,
    /// When it was written. The server sets it.
    pub written: WallTime,
}

/// What a listing says of an entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EntrySummary {
    /// When it was written.
    pub written: WallTime,
    /// When it was last read or written.
    pub used: WallTime,
    /// The bytes of its closure, uncompressed.
    pub bytes: u64,
    /// How many distinct chunks its closure has.
    pub chunks: u64,
}

/// What stands before the body of a chunk.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChunkHeader {
    /// Index into the request's chunks.
    pub index: u32,
    /// What the body's uncompressed bytes are.
    pub digest: Digest,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// How many bytes of body follow. At most the chunk's size; for [`Encoding::Missing`] zero.
    pub body_bytes: u32,
}

/// How a chunk is stored and sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Encoding {
    /// As it is: compressing does not make it smaller.
    Raw,
    /// One zstd frame.
    Zstd,
    /// In an answer: the chunk is not there, or not for this team.
    Missing,
}

/// That a dependency cache did something for a build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UseRecord {
    /// Whose build.
    pub team: Team,
    /// Of which project.
    pub project: ProjectName,
    /// What was done.
    pub what: CacheUse,
    /// The entry that was restored: the cache knows how long it took to make what it names. `None`: none was.
    pub entry: Option<EntryKey>,
}

/// What the cache holds and has done since it was made.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Distinct chunks.
    pub chunks: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// What they take on disk, in bytes.
    pub bytes_stored: u64,
    /// What the disk has left, in bytes.
    pub bytes_free: u64,
    /// Restores by team, project and key: a page of them.
    pub uses: Vec<UseStats>,
    /// Whether there are more.
    pub more: bool,
}

/// Which uses of dependency caches are counted together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UseKey {
    /// Whose builds.
    pub team: Team,
    /// Of which project.
    pub project: ProjectName,
    /// The key after expansion.
    pub key: String,
}

/// What dependency caches did under one key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UseStats {
    /// Whose builds.
    pub team: Team,
    /// Of which project.
    pub project: ProjectName,
    /// The key after expansion.
    pub key: String,
    /// How often an entry was restored.
    pub restored: u64,
    /// How often none was there.
    pub missed: u64,
    /// How often one was saved.
    pub saved: u64,
    /// The bytes of all files restored.
    pub bytes_restored: u64,
    /// The time that restores took, in milliseconds.
    pub restore_millis: u64,
    /// How long it took to make what was restored, in milliseconds, each time anew.
    pub made_millis: u64,
    /// For how many of the restores that is an estimate from their bytes, since nobody has said how long it took.
    pub estimated: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build::BuildId, cache_spec::CacheSpec, job::JobId};

    #[test]
    fn keys_name_the_attempt_and_begin_as_all_of_their_build_do() {
        let build = BuildId(7);
        let job = JobId { build, index: 3 };
        let id = "00000000-0000-0000-0000-000000000007";
        assert_eq!(keys::source(build), format!("source/{id}"));
        assert_eq!(keys::snapshot(job, 2), format!("snapshot/{id}/3/2"));
        assert_eq!(keys::artifact(build, 4, 1), format!("artifact/{id}/4/1"));
        assert!(keys::snapshot(job, 2).starts_with(&keys::snapshots(build)));
        assert!(keys::artifact(build, 4, 1).starts_with(&keys::artifacts(build)));
        let key = keys::saved("mine/main");
        assert!(key.starts_with(keys::SAVED));
        assert_eq!(keys::saved_name(&key), Some("mine/main"));
        assert!(!keys::saved("mine/mainly").starts_with(&key));
    }

    #[test]
    fn a_key_is_words_that_mean_no_other_place_and_is_not_too_long() {
        for key in ["a", "saved/mine/=", "dependency/app/v/", "..a/b.."] {
            assert_eq!(keys::check(key), Ok(()), "{key}");
        }
        for key in ["", ".", "..", "a/../b", "./a", "a/."] {
            let words = keys::KeyError::Words {
                key: key.to_owned(),
            };
            assert_eq!(keys::check(key), Err(words));
        }
        assert_eq!(keys::check(&"k".repeat(KEY_BYTES_MAX)), Ok(()));
        let bytes = KEY_BYTES_MAX + 1;
        let length = keys::KeyError::Length { bytes };
        assert_eq!(keys::check(&"k".repeat(bytes)), Err(length));
    }

    #[test]
    fn what_was_made_invalid_and_what_is_shared_stand_under_keys_of_their_own() {
        let mut scope = keys::CacheScope::of("app".parse().unwrap());
        let keyed = CacheSpec {
            key: Some("k".to_owned()),
            ..CacheSpec::default()
        };
        let starts = |scope: &keys::CacheScope, spec: &CacheSpec, start: &str| {
            let key = scope.dependency(spec, "k");
            assert!(key.starts_with(start), "{key}");
            assert!(scope.dependencies().iter().any(|all| key.starts_with(all)));
        };
        starts(&scope, &keyed, "dependency/app/");
        assert_eq!(scope.dependencies(), [keys::dependencies(&scope.project)]);
        scope.generation = 3;
        scope.shared = Some(("all".parse().unwrap(), 0));
        starts(&scope, &keyed, "dependency/@all/");
        starts(&scope, &CacheSpec::default(), "dependency/app@3/");
        scope.shared = Some(("all".parse().unwrap(), 1));
        starts(&scope, &keyed, "dependency/@all@1/");
    }
}
