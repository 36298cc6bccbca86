//! Unpacking and verifying chunks that were read, while the next ones arrive.

use bytes::Bytes;
use protocol::message::cache::ChunkHeader;
use tokio::{sync::mpsc, task::JoinSet};

use super::{CacheError, ReadChunk};
use crate::{
    compression::{self, DecodeChunkError},
    ongoing,
};

/// How many large chunks are unpacked at a time for one request. Each takes up to 4 MiB; with two cores more
/// would only wait.
const DECODES_MAX: usize = 4;
/// Up to this size a chunk is unpacked where it arrives, in bytes: handing it to another thread would
/// take longer than hashing it.
const DECODE_HERE_MAX: u64 = 32 * 1024;
/// How many of those are unpacked together at most: as many leaves as a processor hashes at once.
const TOGETHER_MAX: usize = 16;

/// A chunk as it came.
pub(super) struct Arrived {
    /// Index into the chunks that were asked for.
    pub(super) index: usize,
    pub(super) header: ChunkHeader,
    pub(super) body: Bytes,
}

type Decoded = Result<ReadChunk, Box<CacheError>>;

/// What of one request is being unpacked.
pub(super) struct Unpacking<'a> {
    out: &'a mpsc::Sender<ReadChunk>,
    /// Whether there is only one: nothing arrives while it is unpacked.
    is_alone: bool,
    /// Small ones that wait for others.
    small: Vec<Arrived>,
    large: JoinSet<Decoded>,
}

impl<'a> Unpacking<'a> {
    /// So many `chunks` go to `out` when they are verified.
    pub(super) fn new(out: &'a mpsc::Sender<ReadChunk>, chunks: usize) -> Self {
        Self {
            out,
            is_alone: chunks == 1,
            small: Vec::new(),
            large: JoinSet::new(),
        }
    }

    /// Takes a chunk; `more` says whether more of the next has arrived. Says whether somebody still wants chunks.
    ///
    /// # Errors
    ///
    /// If this or one that was taken before is corrupt.
    pub(super) async fn take(&mut self, chunk: Arrived, more: bool) -> Result<bool, CacheError> {
        if self.is_alone || chunk.header.digest.size() <= DECODE_HERE_MAX {
            self.small.push(chunk);
            return match !more || TOGETHER_MAX <= self.small.len() {
                true => self.small().await,
                false => Ok(true),
            };
        }
        if !self.small().await? || DECODES_MAX <= self.large.len() && !self.next_large().await? {
            return Ok(false);
        }
        self.large.spawn_blocking(ongoing::owned(move || {
            let decoded = compression::decode(&chunk.header, chunk.body.clone());
            read(&chunk, decoded)
        }));
        Ok(true)
    }

    /// Waits for all that was taken.
    ///
    /// # Errors
    ///
    /// If one of them is corrupt.
    pub(super) async fn finish(mut self) -> Result<(), CacheError> {
        if !self.small().await? {
            return Ok(());
        }
        while !self.large.is_empty() {
            if !self.next_large().await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Unpacks the small ones that wait.
    async fn small(&mut self) -> Result<bool, CacheError> {
        let waiting = std::mem::take(&mut self.small);
        let chunks = waiting
            .iter()
            .map(|chunk| (chunk.header, chunk.body.clone()));
        let decoded = compression::decode_each(chunks.collect());
        for (chunk, decoded) in waiting.iter().zip(decoded) {
            if !self.deliver(read(chunk, decoded)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for one of the large ones.
    async fn next_large(&mut self) -> Result<bool, CacheError> {
        let Some(decoded) = self.large.join_next().await else {
            return Ok(true);
        };
        self.deliver(decoded.expect("unpacking does not panic"))
            .await
    }

    async fn deliver(&self, decoded: Decoded) -> Result<bool, CacheError> {
        match decoded {
            Ok(chunk) => Ok(self.out.send(chunk).await.is_ok()),
            Err(error) => Err(*error),
        }
    }
}

fn read(chunk: &Arrived, decoded: Result<Bytes, DecodeChunkError>) -> Decoded {
    let digest = chunk.header.digest;
    match decoded {
        Ok(bytes) => Ok(ReadChunk {
            index: chunk.index,
            digest,
            bytes,
            bytes_moved: u64::from(chunk.header.body_bytes),
        }),
        Err(source) => Err(Box::new(CacheError::Corrupt { digest, source })),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{digest::Digest, message::cache::Encoding};

    use super::*;

    fn arrived(index: usize, bytes: &[u8], named: &[u8]) -> Arrived {
        Arrived {
            index,
            header: ChunkHeader {
                index: index.try_into().unwrap(),
                digest: Digest::of(named),
                encoding: Encoding::Raw,
                body_bytes: bytes.len().try_into().unwrap(),
            },
            body: Bytes::copy_from_slice(bytes),
        }
    }

    fn delivered(out: &mut mpsc::Receiver<ReadChunk>) -> Vec<usize> {
        let chunks = std::iter::from_fn(|| out.try_recv().ok());
        chunks.map(|chunk| chunk.index).collect()
    }

    #[tokio::test]
    async fn small_chunks_wait_for_each_other_while_more_comes_and_no_longer() {
        let (send, mut out) = mpsc::channel(100);
        let mut unpacking = Unpacking::new(&send, 40);
        for index in 0..15 {
            assert!(
                unpacking
                    .take(arrived(index, b"small", b"small"), true)
                    .await
                    .unwrap()
            );
        }
        assert!(delivered(&mut out).is_empty());
        unpacking
            .take(arrived(15, b"small", b"small"), true)
            .await
            .unwrap();
        assert_eq!(delivered(&mut out), (0..16).collect::<Vec<_>>());
        unpacking
            .take(arrived(16, b"small", b"small"), true)
            .await
            .unwrap();
        unpacking
            .take(arrived(17, b"small", b"small"), false)
            .await
            .unwrap();
        assert_eq!(delivered(&mut out), [16, 17]);
        unpacking
            .take(arrived(18, b"small", b"small"), true)
            .await
            .unwrap();
        let large = vec![7; 100_000];
        unpacking
            .take(arrived(19, &large, &large), true)
            .await
            .unwrap();
        assert_eq!(
            delivered(&mut out),
            [18],
            "what came first does not wait for what is large"
        );
        unpacking
            .take(arrived(20, b"small", b"small"), true)
            .await
            .unwrap();
        unpacking.finish().await.unwrap();
        let mut rest = delivered(&mut out);
        rest.sort_unstable();
        assert_eq!(rest, [19, 20]);
    }

    #[tokio::test]
    async fn the_corrupt_one_of_many_is_named_and_those_before_it_are_delivered() {
        let (send, mut out) = mpsc::channel(100);
        let mut unpacking = Unpacking::new(&send, 40);
        for (index, bytes, named) in [
            (0, b"first", b"first"),
            (1, b"other", b"names"),
            (2, b"third", b"third"),
        ] {
            unpacking
                .take(arrived(index, bytes, named), true)
                .await
                .unwrap();
        }
        let error = unpacking.finish().await.unwrap_err();
        let CacheError::Corrupt { digest, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(digest, Digest::of(b"names"));
        assert_eq!(delivered(&mut out), [0]);
    }

    #[tokio::test]
    async fn nothing_more_is_taken_when_nobody_wants_any() {
        let (send, out) = mpsc::channel(100);
        drop(out);
        let mut unpacking = Unpacking::new(&send, 2);
        assert!(
            !unpacking
                .take(arrived(0, b"small", b"small"), false)
                .await
                .unwrap()
        );
        unpacking.finish().await.unwrap();
    }
}
