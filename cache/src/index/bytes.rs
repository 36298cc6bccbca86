//! How an index lies on disk. Pure.
//!
//! It is this machine's own, and can be thrown away at any time: bytes of another version, or of none,
//! are as good as no index.

use std::collections::BTreeMap;

use protocol::{
    blob::{Blob, TreeRef},
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    layout::LAYOUT_CHUNKS_MAX,
    path::{PATH_BYTES_MAX, TreePath},
    tree::TREE_ENTRIES_MAX,
};

use super::{IndexedFiles, Units, Whole};
use crate::capture::{Stamp, Stamped};

const WHOLE: [u8; 4] = *b"gixw";
const FILES: [u8; 4] = *b"gixf";
const VERSION: u8 = 1;

pub(super) fn encode_whole(whole: &Whole) -> Vec<u8> {
    let mut writer = Writer::new(WHOLE, VERSION);
    writer.byte(u8::from(whole.fingerprint.is_some()));
    if let Some(fingerprint) = &whole.fingerprint {
        writer.digest(fingerprint);
    }
    for blob in [&whole.tree.tree, &whole.tree.attributes, &whole.tree.layout] {
        writer.digest(&blob.digest);
        digests(&mut writer, &blob.chunks);
    }
    digests(&mut writer, &whole.chunks);
    writer.number(whole.files);
    writer.number(whole.bytes);
    writer.finish()
}

pub(super) fn decode_whole(bytes: &[u8]) -> Option<Whole> {
    let read = || -> Result<Whole, DecodeError> {
        let mut reader = Reader::new(bytes, WHOLE, VERSION)?;
        let fingerprint = match reader.byte("fingerprint")? {
            0 => None,
            _ => Some(reader.digest("fingerprint")?),
        };
        let mut blob = || -> Result<Blob, DecodeError> {
            Ok(Blob {
                digest: reader.digest("blob")?,
                chunks: read_digests(&mut reader)?,
            })
        };
        let tree = TreeRef {
            tree: blob()?,
            attributes: blob()?,
            layout: blob()?,
        };
        let whole = Whole {
            fingerprint,
            tree,
            chunks: read_digests(&mut reader)?,
            files: reader.number("files")?,
            bytes: reader.number("bytes")?,
        };
        reader.finish()?;
        Ok(whole)
    };
    read().ok()
}

pub(super) fn encode_files(files: &[Stamped], units: &Units) -> Vec<u8> {
    let mut writer = Writer::new(FILES, VERSION);
    writer.number(files.len() as u64);
    let mut last: &[u8] = &[];
    for file in files {
        let path = file.path.as_bytes();
        let shared = last.iter().zip(path).take_while(|(a, b)| a == b).count();
        writer.number(shared as u64);
        writer.bytes(&path[shared..]);
        writer.number(file.stamp.node.0);
        writer.number(file.stamp.node.1);
        writer.number(file.stamp.size);
        writer.signed(file.stamp.modified);
        writer.signed(file.stamp.changed);
        writer.digest(&file.digest);
        last = path;
    }
    writer.number(units.len() as u64);
    for (name, chunks) in units {
        name.iter().for_each(|&byte| writer.byte(byte));
        digests(&mut writer, chunks);
    }
    writer.finish()
}

pub(super) fn decode_files(bytes: &[u8]) -> Option<IndexedFiles> {
    let read = || -> Result<IndexedFiles, DecodeError> {
        let mut reader = Reader::new(bytes, FILES, VERSION)?;
        let count = reader.count("files", TREE_ENTRIES_MAX)?;
        let mut files = Vec::with_capacity(count.min(bytes.len() / 40));
        let mut path = Vec::new();
        for _ in 0..count {
            let shared = reader.count("shared length", path.len() as u64)?;
            path.truncate(shared);
            path.extend_from_slice(reader.bytes("path", PATH_BYTES_MAX as u64)?);
            files.push(Stamped {
                path: TreePath::new(path.clone()).map_err(|_| reader.refuse("path"))?,
                stamp: Stamp {
                    node: (reader.number("device")?, reader.number("inode")?),
                    size: reader.number("length")?,
                    modified: reader.signed("time")?,
                    changed: reader.signed("time")?,
                },
                digest: reader.digest("digest")?,
            });
        }
        if !files.is_sorted_by(|a: &Stamped, b| a.path < b.path) {
            return Err(reader.refuse("order of files"));
        }
        let mut units = BTreeMap::new();
        for _ in 0..reader.count("units", TREE_ENTRIES_MAX)? {
            units.insert(reader.array("unit")?, read_digests(&mut reader)?);
        }
        reader.finish()?;
        Ok(IndexedFiles::new(files, units))
    };
    read().ok()
}

fn digests(writer: &mut Writer, digests: &[Digest]) {
    writer.number(digests.len() as u64);
    digests.iter().for_each(|digest| writer.digest(digest));
}

fn read_digests(reader: &mut Reader<'_>) -> Result<Vec<Digest>, DecodeError> {
    let count = reader.count("number of digests", LAYOUT_CHUNKS_MAX)?;
    // What is not there is not made room for.
    let mut digests = Vec::new();
    for _ in 0..count {
        digests.push(reader.digest("digest")?);
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Whole {
        let blob = |text: &str| Blob {
            digest: Digest::of(text.as_bytes()),
            chunks: vec![Digest::of(text.as_bytes())],
        };
        Whole {
            fingerprint: Some(Digest::of(b"seen")),
            tree: TreeRef {
                tree: blob("tree"),
                attributes: blob("attributes"),
                layout: blob("layout"),
            },
            chunks: vec![Digest::of(b"chunk"), Digest::of(b"another")],
            files: 7,
            bytes: 9,
        }
    }

    fn files() -> IndexedFiles {
        let file = |path: &[u8], changed| Stamped {
            path: TreePath::new(path).unwrap(),
            stamp: Stamp {
                node: (3, u64::MAX),
                size: 5,
                modified: -1,
                changed,
            },
            digest: Digest::of(path),
        };
        let units = [([7; 32], vec![Digest::of(b"a")]), ([9; 32], vec![])];
        let files = vec![file(b"a/b", 1), file(b"a/b\xff", i64::MAX), file(b"a.c", 0)];
        IndexedFiles::new(files, units.into())
    }

    #[test]
    fn an_index_survives_its_bytes() {
        assert_eq!(decode_whole(&encode_whole(&whole())), Some(whole()));
        let files = files();
        let bytes = encode_files(&files.files, &files.units);
        assert_eq!(decode_files(&bytes), Some(files));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let indexed = files();
        for bytes in [
            encode_whole(&whole()),
            encode_files(&indexed.files, &indexed.units),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(decode_whole(&bytes[..end]), None);
                assert_eq!(decode_files(&bytes[..end]), None);
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xff;
                let _some = (decode_whole(&damaged), decode_files(&damaged));
            }
        }
    }
}
