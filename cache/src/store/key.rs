//! The keys of rows: what stands where in each column.

use protocol::{
    digest::Digest,
    message::cache::EntryKey,
    name::{Namespace, ProjectName, Team},
};

use crate::compression;

/// The key of everything about one chunk: its 32 hash bytes and its length, 4 bytes big-endian. The
/// length belongs to it, so that a digest with a wrong length is not found.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct ChunkKey([u8; 36]);

impl ChunkKey {
    /// The key of the chunk `digest`; `None` if that cannot name a chunk.
    pub(crate) fn of(digest: &Digest) -> Option<Self> {
        if !compression::is_chunk(digest) {
            return None;
        }
        let size = u32::try_from(digest.size()).ok()?;
        let mut bytes = [0; 36];
        bytes[..32].copy_from_slice(digest.hash());
        bytes[32..].copy_from_slice(&size.to_be_bytes());
        Some(Self(bytes))
    }

    /// The key that these bytes are, if they have its length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 36] {
        &self.0
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("a key starts with the hash")
    }

    /// How many bytes the chunk has, uncompressed.
    pub(crate) fn size(&self) -> u64 {
        let size = self.0.last_chunk().expect("a key ends with the length");
        u64::from(u32::from_be_bytes(*size))
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::from_parts(*self.hash(), self.size())
    }

    /// The key of the row that says that `team` has this chunk.
    pub(crate) fn owner(&self, team: &Team) -> Vec<u8> {
        [&self.0[..], team.as_str().as_bytes()].concat()
    }
}

/// The key of an entry's rows.
pub(crate) fn entry(key: &EntryKey) -> Vec<u8> {
    entries(&key.namespace, &key.path)
}

/// How the keys of all entries of `namespace` start whose own keys start with `prefix`. No namespace
/// has a `/` in it.
pub(crate) fn entries(namespace: &Namespace, prefix: &str) -> Vec<u8> {
    format!("{namespace}/{prefix}").into_bytes()
}

/// The path of an entry, without its namespace, from the key of its row; `None` if that is none.
pub(crate) fn path_of(row: &[u8]) -> Option<&str> {
    let (_, path) = str::from_utf8(row).ok()?.split_once('/')?;
    Some(path)
}

/// The key of what is counted for a dependency cache.
pub(crate) fn uses(team: &Team, project: &ProjectName, key: &str) -> Vec<u8> {
    format!("{team}/{project}/{key}").into_bytes()
}

/// What [`uses`] was made from.
pub(crate) fn parse_uses(row: &[u8]) -> Option<(Team, ProjectName, &str)> {
    let mut parts = str::from_utf8(row).ok()?.splitn(3, '/');
    let team = parts.next()?.parse().ok()?;
    let project = parts.next()?.parse().ok()?;
    Some((team, project, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_key_and_only_chunks_have_one() {
        let digest = Digest::of(b"chunk");
        let key = ChunkKey::of(&digest).unwrap();
        assert_eq!(key.digest(), digest);
        assert_eq!(ChunkKey::from_bytes(key.as_bytes()), Some(key));
        assert_eq!(ChunkKey::of(&Digest::of(b"")), None);
        assert_eq!(ChunkKey::of(&Digest::from_parts([0; 32], 1 << 32)), None);
    }

    #[test]
    fn keys_of_uses_may_hold_slashes() {
        let team: Team = "red".parse().unwrap();
        let project: ProjectName = "app".parse().unwrap();
        let row = uses(&team, &project, "npm/1/2");
        assert_eq!(parse_uses(&row), Some((team, project, "npm/1/2")));
    }
}
