//! Layouts: where the bytes of a tree's files lie.
//!
//! A layout is in no key and can be replaced by a better packing at any time. It is not trusted either:
//! whoever puts a file together from chunks checks it against the file's own digest.

use crate::{
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    tree::TREE_ENTRIES_MAX,
};

/// The largest chunk, in bytes.
pub const CHUNK_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How many chunks a layout may name: 8 TiB of the smallest chunks that big files are cut into.
pub const LAYOUT_CHUNKS_MAX: u64 = 64 << 20;

const TAG: [u8; 4] = *b"glay";
const VERSION: u8 = 1;

/// A run of bytes inside a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Index into [`Layout::chunks`].
    pub chunk: u32,
    /// Where the run starts in the uncompressed chunk, in bytes.
    pub offset: u32,
    /// How long it is, in bytes; not zero.
    pub length: u32,
}

/// Where the files of one tree lie.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    /// The distinct chunks, in the order in which the files need them: the closure.
    pub chunks: Vec<Digest>,
    /// The pieces of each distinct file that is not empty, in the order in which the tree first names
    /// it; the pieces of a file in order.
    pub files: Vec<Vec<Piece>>,
}

impl Layout {
    /// The canonical bytes, for the tree with the digest `tree`.
    pub fn encode(&self, tree: &Digest) -> Vec<u8> {
        let mut writer = Writer::new(TAG, VERSION);
        writer.digest(tree);
        writer.number(self.chunks.len() as u64);
        for chunk in &self.chunks {
            writer.digest(chunk);
        }
        writer.number(self.files.len() as u64);
        for pieces in &self.files {
            writer.number(pieces.len() as u64);
            for piece in pieces {
                writer.number(u64::from(piece.chunk));
                writer.number(u64::from(piece.offset));
                writer.number(u64::from(piece.length));
            }
        }
        writer.finish()
    }

    /// Reads canonical bytes; gives the digest of the tree that they are about, too.
    ///
    /// Every piece of the result lies inside its chunk, and no chunk is over [`CHUNK_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// If the bytes are anything but what [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<(Digest, Self), DecodeError> {
        let (mut reader, tree, chunks) = decode_closure(bytes)?;
        let count = reader.count("number of files", TREE_ENTRIES_MAX)?;
        let mut files = Vec::with_capacity(count.min(bytes.len() / 4));
        for _ in 0..count {
            let count = reader.count("number of pieces", LAYOUT_CHUNKS_MAX)?;
            let mut pieces = Vec::with_capacity(count.min(bytes.len() / 3));
            for _ in 0..count {
                pieces.push(decode_piece(&mut reader, &chunks)?);
            }
            if pieces.is_empty() {
                return Err(reader.refuse("number of pieces"));
            }
            files.push(pieces);
        }
        reader.finish()?;
        Ok((tree, Self { chunks, files }))
    }

    /// Reads only the closure of a layout: its distinct chunks.
    ///
    /// # Errors
    ///
    /// If the bytes do not start as a layout does.
    pub fn decode_chunks(bytes: &[u8]) -> Result<Vec<Digest>, DecodeError> {
        decode_closure(bytes).map(|(_, _, chunks)| chunks)
    }
}

fn decode_closure(bytes: &[u8]) -> Result<(Reader<'_>, Digest, Vec<Digest>), DecodeError> {
    let mut reader = Reader::new(bytes, TAG, VERSION)?;
    let tree = reader.digest("tree digest")?;
    let count = reader.count("number of chunks", LAYOUT_CHUNKS_MAX)?;
    let mut chunks = Vec::with_capacity(count.min(bytes.len() / 33));
    for _ in 0..count {
        let chunk = reader.digest("chunk digest")?;
        if chunk.size() == 0 || CHUNK_BYTES_MAX < chunk.size() {
            return Err(reader.refuse("size of chunk"));
        }
        chunks.push(chunk);
    }
    Ok((reader, tree, chunks))
}

fn decode_piece(reader: &mut Reader<'_>, chunks: &[Digest]) -> Result<Piece, DecodeError> {
    let chunk = reader.count("chunk of piece", u64::from(u32::MAX))?;
    let offset = reader.count("offset of piece", CHUNK_BYTES_MAX)?;
    let length = reader.count("length of piece", CHUNK_BYTES_MAX)?;
    let inside = chunks
        .get(chunk)
        .is_some_and(|digest| (offset + length) as u64 <= digest.size());
    if !inside || length == 0 {
        return Err(reader.refuse("piece"));
    }
    let small = |value: usize| u32::try_from(value).expect("limits are below 2^32");
    Ok(Piece {
        chunk: small(chunk),
        offset: small(offset),
        length: small(length),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Layout {
        let piece = |chunk, offset, length| Piece {
            chunk,
            offset,
            length,
        };
        Layout {
            chunks: vec![Digest::of(b"one chunk"), Digest::of(b"another")],
            files: vec![vec![piece(0, 0, 3)], vec![piece(0, 3, 6), piece(1, 0, 7)]],
        }
    }

    #[test]
    fn the_bytes_of_a_layout_never_change() {
        let bytes = sample().encode(&Digest::of(b"tree"));
        assert_eq!(Digest::of(&bytes).to_string(), GOLDEN);
    }
    const GOLDEN: &str = "20a5e87483c76720ac2efbd5f6d4e0e84db89d6e6f781900eb2b92ab85330133/117";

    #[test]
    fn a_layout_survives_its_bytes() {
        let tree = Digest::of(b"tree");
        let bytes = sample().encode(&tree);
        assert_eq!(Layout::decode(&bytes), Ok((tree, sample())));
        assert_eq!(Layout::decode_chunks(&bytes), Ok(sample().chunks));
    }

    #[test]
    fn a_piece_outside_its_chunk_is_refused() {
        let mut layout = sample();
        layout.files[0][0].length = 10;
        assert!(Layout::decode(&layout.encode(&Digest::of(b"tree"))).is_err());
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let bytes = sample().encode(&Digest::of(b"tree"));
        for end in 0..bytes.len() {
            assert!(Layout::decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok((tree, layout)) = Layout::decode(&damaged) {
                    assert_eq!(layout.encode(&tree), damaged, "two spellings");
                }
            }
        }
    }
}
