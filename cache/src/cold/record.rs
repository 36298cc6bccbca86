//! The bytes of an entry's object. Pure; versioned, since they are read by later programs.

use protocol::canonical::{DecodeError, Reader, Writer};

use crate::store::{
    WholeEntry,
    row::{self, CLOSURE_CHUNKS_MAX, StoredEntry},
};

/// How long one may be, in bytes: every chunk named three times, in 40 bytes each.
pub(super) const RECORD_BYTES_MAX: u64 = CLOSURE_CHUNKS_MAX * 3 * 40 + (1 << 20);

pub(super) fn encode(entry: &WholeEntry) -> Vec<u8> {
    let mut writer = Writer::new(*b"gcld", 1);
    writer.bytes(&entry.stored.encode());
    writer.bytes(&row::encode_closure(&entry.closure));
    writer.number(entry.made_millis);
    writer.finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<WholeEntry, DecodeError> {
    let mut reader = Reader::new(bytes, *b"gcld", 1)?;
    let stored = reader.bytes("entry", RECORD_BYTES_MAX)?;
    let closure = reader.bytes("closure", RECORD_BYTES_MAX)?;
    let entry = WholeEntry {
        stored: StoredEntry::decode(stored)?,
        closure: row::decode_closure(closure)?,
        made_millis: reader.number("time to make")?,
    };
    reader.finish()?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use protocol::{
        access::Trust, blob::Blob, digest::Digest, message::cache::Entry, time::WallTime,
    };

    use super::*;
    use crate::store::key::ChunkKey;

    #[test]
    fn a_record_survives_its_bytes_and_no_cut_of_them_is_one() {
        let digest = Digest::of(b"chunk");
        let blob = Blob {
            digest,
            chunks: vec![digest],
        };
        let entry = Entry {
            blobs: vec![blob],
            trees: Vec::new(),
            outlines: Vec::new(),
            trust: Trust::Team,
            team: "main".parse().unwrap(),
            written: WallTime(7),
        };
        let whole = WholeEntry {
            stored: StoredEntry {
                entry,
                chunks: 1,
                bytes: 5,
            },
            closure: vec![ChunkKey::of(&digest).unwrap()],
            made_millis: 1500,
        };
        let bytes = encode(&whole);
        assert_eq!(decode(&bytes).unwrap(), whole);
        for cut in 0..bytes.len() {
            decode(&bytes[..cut]).unwrap_err();
        }
    }
}
