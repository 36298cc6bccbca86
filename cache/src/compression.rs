//! Chunks as they are stored and sent: compressed each by itself where that makes them smaller, and
//! verified when they are unpacked. The one module that names the compression library.

use std::{
    cell::RefCell,
    io::{self, Read},
};

use bytes::Bytes;
use protocol::{
    digest::Digest,
    layout::CHUNK_BYTES_MAX,
    message::cache::{ChunkHeader, Encoding},
};
use zstd::bulk::{Compressor, Decompressor};

/// How hard chunks are compressed. The fastest of zstd's ordinary levels: compressing shares the
/// machine with hashing and with the network's encryption, and the next levels save some percent of
/// the bytes for nearly twice the time.
const LEVEL: i32 = 1;

/// A chunk in the form in which it travels and is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodedChunk {
    /// What the uncompressed bytes are.
    pub digest: Digest,
    /// How `body` is encoded; never [`Encoding::Missing`].
    pub encoding: Encoding,
    /// The encoded bytes, at most as many as the chunk has.
    pub body: Bytes,
}

/// Why an encoded chunk is not what it says. Whoever made it is damaged or hostile: the chunk is worth
/// nothing, and the same bytes will fail again.
#[derive(Debug, thiserror::Error)]
pub enum DecodeChunkError {
    /// The digest names no chunk: nothing is unpacked.
    #[error("{digest} is no chunk: a chunk has 1 to {CHUNK_BYTES_MAX} bytes")]
    Size {
        /// What the chunk is said to be.
        digest: Digest,
    },
    /// The encoding has no body.
    #[error("chunk {digest} has no body")]
    NoBody {
        /// What the chunk is said to be.
        digest: Digest,
    },
    /// The body is no zstd frame, or one that holds more than the chunk may have.
    #[error("chunk {digest} does not decompress to at most {} bytes", digest.size())]
    Decompress {
        /// What the chunk is said to be.
        digest: Digest,
        /// What zstd says.
        source: io::Error,
    },
    /// The body holds other bytes.
    #[error("chunk {expected} has the bytes of {found}")]
    Mismatch {
        /// What the chunk is said to be.
        expected: Digest,
        /// What its bytes are.
        found: Digest,
    },
}

thread_local! {
    /// Contexts are made once for a thread: making one costs as much as compressing a small chunk.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What a stream that somebody has compressed with zstd holds, from its beginning.
///
/// # Errors
///
/// If there is no memory for it.
pub fn unpacked_stream(packed: impl Read) -> io::Result<impl Read> {
    zstd::stream::read::Decoder::new(packed)
}

/// Encodes the chunk `bytes`, whose digest is `digest`.
pub fn encode(bytes: &[u8], digest: Digest) -> EncodedChunk {
    match compress(bytes) {
        Ok(body) if body.len() < bytes.len() => EncodedChunk {
            digest,
            encoding: Encoding::Zstd,
            body: body.into(),
        },
        // A chunk that cannot be compressed is as good as it is.
        _ => EncodedChunk {
            digest,
            encoding: Encoding::Raw,
            body: Bytes::copy_from_slice(bytes),
        },
    }
}

/// The chunk that `body` encodes as `header` says; what is given back is what the digest names.
///
/// Takes at most the memory that the digest says, whatever the body holds.
///
/// # Errors
///
/// If it is anything else.
pub fn decode(header: &ChunkHeader, body: Bytes) -> Result<Bytes, DecodeChunkError> {
    let bytes = unpack(header, body)?;
    let found = Digest::of(&bytes);
    verified(bytes, header.digest, found)
}

/// As [`decode`], of several, in their order: faster than one after another if they are small.
pub(crate) fn decode_each(
    chunks: Vec<(ChunkHeader, Bytes)>,
) -> Vec<Result<Bytes, DecodeChunkError>> {
    let unpacked = chunks.into_iter().map(|(header, body)| {
        let bytes = unpack(&header, body)?;
        Ok((header.digest, bytes))
    });
    let unpacked: Vec<_> = unpacked.collect();
    let good = unpacked.iter().flatten();
    let runs: Vec<&[u8]> = good.map(|(_, bytes)| &bytes[..]).collect();
    let mut found = Digest::of_each(&runs).into_iter();
    let verified = unpacked.into_iter().map(|chunk| {
        let (digest, bytes) = chunk?;
        let found = found.next().expect("each that was unpacked is hashed");
        verified(bytes, digest, found)
    });
    verified.collect()
}

/// What `body` holds, whatever it hashes to.
fn unpack(header: &ChunkHeader, body: Bytes) -> Result<Bytes, DecodeChunkError> {
    let digest = header.digest;
    if !is_chunk(&digest) {
        return Err(DecodeChunkError::Size { digest });
    }
    match header.encoding {
        Encoding::Raw => Ok(body),
        Encoding::Zstd => decompress(&body, digest),
        Encoding::Missing => Err(DecodeChunkError::NoBody { digest }),
    }
}

fn verified(bytes: Bytes, expected: Digest, found: Digest) -> Result<Bytes, DecodeChunkError> {
    if found == expected {
        Ok(bytes)
    } else {
        Err(DecodeChunkError::Mismatch { expected, found })
    }
}

/// How a compressed body begins.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Every compressed body that begins anywhere in `bytes`, unpacked: for whoever searches the files of a store
/// for what must not be in it. What does not unpack to a chunk is none.
pub fn bodies_in(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts = bytes.windows(FRAME.len()).enumerate();
    let starts = starts.filter(|(_, window)| *window == FRAME);
    let unpacked = starts.filter_map(|(start, _)| {
        let mut body = Vec::new();
        let frame = zstd::stream::read::Decoder::new(&bytes[start..]).ok()?;
        let frame = frame.single_frame();
        // What was unpacked before it breaks off counts too.
        let _whole_or_not = frame.take(CHUNK_BYTES_MAX).read_to_end(&mut body);
        Some(body)
    });
    unpacked.filter(|body| !body.is_empty()).collect()
}

/// Whether `digest` can name a chunk at all.
pub(crate) const fn is_chunk(digest: &Digest) -> bool {
    0 < digest.size() && digest.size() <= CHUNK_BYTES_MAX
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(bytes)
    })
}

fn decompress(body: &[u8], digest: Digest) -> Result<Bytes, DecodeChunkError> {
    let error = |source| DecodeChunkError::Decompress { digest, source };
    let capacity = usize::try_from(digest.size()).expect("a chunk's size is checked");
    DECOMPRESSOR
        .with_borrow_mut(|slot| {
            let decompressor = match slot {
                Some(decompressor) => decompressor,
                None => slot.insert(Decompressor::new()?),
            };
            decompressor.decompress(body, capacity)
        })
        .map(Bytes::from)
        .map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_bodies_are_found_wherever_they_are() {
        let chunk = [b'a'; 5_000];
        let encoded = encode(&chunk, Digest::of(&chunk));
        assert_eq!(encoded.encoding, Encoding::Zstd);
        let around = [&b"before"[..], &encoded.body, b"after"].concat();
        assert_eq!(bodies_in(&around), [chunk.to_vec()]);
        assert!(bodies_in(b"nothing").is_empty());
    }

    fn header(chunk: &EncodedChunk) -> ChunkHeader {
        ChunkHeader {
            index: 0,
            digest: chunk.digest,
            encoding: chunk.encoding,
            body_bytes: chunk.body.len().try_into().unwrap(),
        }
    }

    fn round_trip(bytes: &[u8]) -> EncodedChunk {
        let chunk = encode(bytes, Digest::of(bytes));
        assert!(chunk.body.len() <= bytes.len());
        assert_eq!(decode(&header(&chunk), chunk.body.clone()).unwrap(), bytes);
        chunk
    }

    #[test]
    fn a_chunk_is_compressed_only_where_that_makes_it_smaller() {
        let compressible = round_trip(&[7; 100_000]);
        assert_eq!(compressible.encoding, Encoding::Zstd);
        assert!(compressible.body.len() < 1_000);
        assert_eq!(round_trip(b"x").encoding, Encoding::Raw);
    }

    #[test]
    fn a_body_that_unpacks_to_more_than_it_says_is_refused() {
        let bomb = compress(&vec![0; 64 << 20]).unwrap();
        let header = ChunkHeader {
            index: 0,
            digest: Digest::of(&[0; 1000]),
            encoding: Encoding::Zstd,
            body_bytes: bomb.len().try_into().unwrap(),
        };
        assert!(matches!(
            decode(&header, bomb.into()),
            Err(DecodeChunkError::Decompress { .. })
        ));
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut chunk = encode(b"these", Digest::of(b"those"));
        assert!(matches!(
            decode(&header(&chunk), chunk.body.clone()),
            Err(DecodeChunkError::Mismatch { .. })
        ));
        chunk.digest = Digest::from_parts([0; 32], CHUNK_BYTES_MAX + 1);
        assert!(matches!(
            decode(&header(&chunk), chunk.body.clone()),
            Err(DecodeChunkError::Size { .. })
        ));
    }
}
