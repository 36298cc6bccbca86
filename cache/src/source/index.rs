//! Reads which paths a git index names. Pure.
//!
//! Only paths are read, and nothing is verified: what is not understood gives fewer paths, never an
//! error. An ignored file that is tracked all the same is then missing from an upload, as it is where
//! there is no index.

use protocol::path::TreePath;

/// What stands in an entry before its hash: times, device, inode, mode, owner, length.
const STAT_BYTES: usize = 40;
/// How many entries are read at most.
const ENTRIES_MAX: u32 = 4_000_000;
/// In the flags: two more bytes of flags follow.
const EXTENDED: u16 = 0x4000;

/// The paths of an index (version 2, 3 or 4) of a repository whose hashes have `hash_bytes` bytes.
pub(super) fn paths(index: &[u8], hash_bytes: usize) -> Vec<TreePath> {
    let mut paths = Vec::new();
    let mut reader = Reader { rest: index };
    let Some((version, count)) = reader.header() else {
        return paths;
    };
    let mut last = Vec::new();
    for _ in 0..count.min(ENTRIES_MAX) {
        let Some(path) = reader.entry(version, hash_bytes, &last) else {
            break;
        };
        // Directories of a sparse index end in `/`, and are no paths.
        paths.extend(TreePath::new(path.clone()));
        last = path;
    }
    paths
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn header(&mut self) -> Option<(u32, u32)> {
        if self.take(4)? != b"DIRC" {
            return None;
        }
        let version = u32::from_be_bytes(*self.take(4)?.first_chunk()?);
        let count = u32::from_be_bytes(*self.take(4)?.first_chunk()?);
        (2..=4).contains(&version).then_some((version, count))
    }

    fn entry(&mut self, version: u32, hash_bytes: usize, last: &[u8]) -> Option<Vec<u8>> {
        let before = self.rest.len();
        self.take(STAT_BYTES + hash_bytes)?;
        let flags = u16::from_be_bytes(*self.take(2)?.first_chunk()?);
        if version >= 3 && flags & EXTENDED != 0 {
            self.take(2)?;
        }
        let mut path = Vec::new();
        if version == 4 {
            // Says how much of the path before it is not its beginning.
            let dropped = self.offset()?;
            path.extend_from_slice(&last[..last.len().checked_sub(dropped)?]);
        }
        let end = self.rest.iter().position(|&byte| byte == 0)?;
        path.extend_from_slice(self.take(end)?);
        let padding = if version == 4 {
            1
        } else {
            // One to eight NULs, so that the next entry starts at a multiple of eight.
            8 - (before - self.rest.len()) % 8
        };
        self.take(padding)?;
        Some(path)
    }

    /// A number in the form in which git writes offsets.
    fn offset(&mut self) -> Option<usize> {
        let mut byte = *self.take(1)?.first()?;
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = *self.take(1)?.first()?;
            value = value.checked_add(1)?.checked_mul(128)? | usize::from(byte & 0x7f);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(version: u32, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = b"DIRC".to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
        for (prefix, path) in entries {
            let start = bytes.len();
            bytes.extend([7; STAT_BYTES + 20]);
            bytes.extend([0, 5]);
            bytes.extend_from_slice(prefix);
            bytes.extend_from_slice(path);
            bytes.push(0);
            while version < 4 && !(bytes.len() - start).is_multiple_of(8) {
                bytes.push(0);
            }
        }
        bytes
    }

    fn shown(index: &[u8]) -> Vec<String> {
        paths(index, 20).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_forms_of_paths_are_read() {
        let plain = index(2, &[(b"", b"a"), (b"", b"dir/file-with-name"), (b"", b"z")]);
        assert_eq!(shown(&plain), ["a", "dir/file-with-name", "z"]);
        let shared = index(
            4,
            &[(b"\0", b"dir/one"), (b"\x03", b"two"), (b"\x07", b"z")],
        );
        assert_eq!(shown(&shared), ["dir/one", "dir/two", "z"]);
    }

    #[test]
    fn damaged_bytes_give_fewer_paths_and_never_panic() {
        for version in [2, 4] {
            let whole = index(version, &[(b"", b"a"), (b"", b"b")]);
            for end in 0..whole.len() {
                assert!(paths(&whole[..end], 20).len() <= 2);
            }
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0xff;
                let _some = paths(&damaged, 20);
            }
        }
    }
}
