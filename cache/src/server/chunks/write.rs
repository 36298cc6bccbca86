//! Chunks in: each is verified and made durable while the next ones arrive, and all of a request are
//! acknowledged together.

use std::pin::pin;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use metrics::counter;
use protocol::{
    layout::CHUNK_BYTES_MAX,
    message::{
        Refusal,
        cache::{CacheReply, ChunkHeader, Encoding},
    },
    name::Team,
};
use tokio::time::timeout;
use transport::ReceiveHalf;

use super::{
    super::{
        Context,
        rates::TeamShare,
        refusal::{chain, internal, invalid, late, of_trouble},
        session::{STALL_TIME, Session},
    },
    reserve,
};
use crate::{
    clock::Clock,
    compression,
    store::{
        Room, Store,
        change::{Applied, Change},
        key::ChunkKey,
        row,
    },
};

/// What a chunk that is being written takes besides its bytes, about, in bytes: a place in the writer's
/// queue, its rows in a batch. Without it small chunks would be nearly free.
const CHUNK_OVERHEAD_BYTES: u64 = 4096;
/// Up to this size a chunk is unpacked and verified where it arrived, in bytes: that takes less than going
/// to another thread and back, some 20 microseconds.
const VERIFIED_AT_ONCE_BYTES_MAX: u64 = 16 * 1024;
/// The largest frame around a [`ChunkHeader`], in bytes; it takes about 50.
const HEADER_BYTES_MAX: usize = 256;

/// Takes chunks until the client has finished, and waits until all of them are durable.
pub(in crate::server) async fn write(
    team: &Team,
    receive: &mut ReceiveHalf,
    (session, context): (&Session, &Context),
) -> Result<CacheReply, Refusal> {
    session.access().chunks(team, Clock::wall())?;
    let share = context.teams.share(team);
    let mut tally = Tally::default();
    // Not tasks of their own: to wake another thread takes longer than all that is done to a small chunk.
    let mut keeping = FuturesUnordered::new();
    for index in 0.. {
        let mut next = pin!(arrive(receive, index, (session, &share, context)));
        let arrived = loop {
            tokio::select! {
                biased;
                Some(kept) = keeping.next() => tally.add(kept?),
                arrived = &mut next => break arrived?,
            }
        };
        let Some(arrived) = arrived else { break };
        keeping.push(keep(&context.store, team, arrived));
    }
    while let Some(kept) = keeping.next().await {
        tally.add(kept?);
    }
    Ok(CacheReply::Written {
        chunks: tally.chunks,
        new: tally.new,
        new_bytes_stored: tally.new_bytes_stored,
    })
}

/// A chunk that has arrived, and is not verified.
#[derive(Debug)]
struct Arrived {
    header: ChunkHeader,
    /// As it is kept: one byte of encoding, and the body.
    value: Bytes,
    /// Of the connection, of the team, and of all.
    room: Room,
}

/// Takes the next chunk, as soon as there is room for it; `None`: the client has finished.
async fn arrive(
    receive: &mut ReceiveHalf,
    index: u32,
    (session, share, context): (&Session, &TeamShare, &Context),
) -> Result<Option<Arrived>, Refusal> {
    let Some(header) = next_header(receive, index).await? else {
        return Ok(None);
    };
    // Only what can hold up nobody but this connection is kept while the client is waited for.
    let bytes = arriving_bytes(&header);
    session.pace.wait(context.teams.clock(), bytes).await;
    share.pace.wait(context.teams.clock(), bytes).await;
    let arriving = reserve(&session.arriving_room, bytes).await;
    let value = next_value(receive, &header).await?;
    let bytes = bytes + unpacked_bytes(&header);
    // The narrowest first: who waits has nothing of a wider one, and who has all of them waits for the disk only.
    let room = vec![
        reserve(&session.write_room, bytes).await,
        share.writes.reserve(bytes).await,
        reserve(&context.write_room, bytes).await,
    ];
    drop(arriving);
    Ok(Some(Arrived {
        header,
        value,
        room,
    }))
}

/// What a chunk takes while it arrives, in bytes.
fn arriving_bytes(header: &ChunkHeader) -> u64 {
    u64::from(header.body_bytes) + CHUNK_OVERHEAD_BYTES
}

/// What it takes later besides, in bytes: what it unpacks to.
fn unpacked_bytes(header: &ChunkHeader) -> u64 {
    match header.encoding {
        Encoding::Zstd => header.digest.size(),
        Encoding::Raw | Encoding::Missing => 0,
    }
}

#[derive(Debug, Default)]
struct Tally {
    chunks: u64,
    new: u64,
    new_bytes_stored: u64,
}

impl Tally {
    fn add(&mut self, applied: Applied) {
        self.chunks += 1;
        counter!("grange_cache_chunks_written_total").increment(1);
        if let Applied::Chunk { new: true, stored } = applied {
            self.new += 1;
            self.new_bytes_stored += stored;
            counter!("grange_cache_chunks_written_bytes_total").increment(stored);
        }
    }
}

/// The next header, checked; `None`: the client has finished.
async fn next_header(
    receive: &mut ReceiveHalf,
    index: u32,
) -> Result<Option<ChunkHeader>, Refusal> {
    let header = timeout(
        STALL_TIME,
        receive.message_within::<ChunkHeader>(HEADER_BYTES_MAX),
    );
    let header = header
        .await
        .map_err(|_elapsed| late(format!("chunk {index} did not arrive in time")))?
        .map_err(|error| invalid(format!("chunk {index} did not arrive: {}", chain(&error))))?;
    let Some(header) = header else {
        return Ok(None);
    };
    let digest = header.digest;
    if header.index != index {
        return Err(invalid(format!(
            "chunk {digest} has index {}, expected {index}",
            header.index
        )));
    }
    if !compression::is_chunk(&digest) {
        return Err(invalid(format!(
            "{digest} is no chunk: a chunk has 1 to {CHUNK_BYTES_MAX} bytes"
        )));
    }
    let body = u64::from(header.body_bytes);
    let fits = match header.encoding {
        Encoding::Raw => body == digest.size(),
        Encoding::Zstd => 0 < body && body <= digest.size(),
        Encoding::Missing => false,
    };
    if !fits {
        return Err(invalid(format!(
            "chunk {digest} has a body of {body} bytes as {:?}",
            header.encoding
        )));
    }
    Ok(Some(header))
}

/// The body of a chunk, behind the byte that says how it is encoded: as it is kept.
async fn next_value(receive: &mut ReceiveHalf, header: &ChunkHeader) -> Result<Bytes, Refusal> {
    let digest = header.digest;
    let length = usize::try_from(header.body_bytes).expect("the length is checked");
    let mut value = BytesMut::with_capacity(1 + length);
    value.put_u8(row::encoding_byte(header.encoding).expect("the encoding is checked"));
    timeout(STALL_TIME, receive.append(&mut value, length))
        .await
        .map_err(|_elapsed| late(format!("chunk {digest} did not arrive in time")))?
        .map_err(|error| invalid(format!("chunk {digest} did not arrive: {}", chain(&error))))?;
    Ok(value.freeze())
}

/// Verifies a chunk and makes it durable.
async fn keep(store: &Store, team: &Team, arrived: Arrived) -> Result<Applied, Refusal> {
    let Arrived {
        header,
        value,
        room,
    } = arrived;
    let body = value.slice(1..);
    let (verified, room) = if header.digest.size() <= VERIFIED_AT_ONCE_BYTES_MAX {
        (compression::decode(&header, body), room)
    } else {
        // The room goes along: the thread goes on when nobody waits for it any more.
        let verify = move || (compression::decode(&header, body), room);
        let verified = tokio::task::spawn_blocking(verify).await;
        verified.map_err(|error| internal(&error))?
    };
    let bytes = verified.map_err(|error| {
        counter!("grange_cache_writes_refused_total", "why" => "content").increment(1);
        invalid(chain(&error))
    })?;
    drop(bytes);
    let change = Change::PutChunk {
        team: team.clone(),
        chunk: ChunkKey::of(&header.digest).expect("the size is checked"),
        value,
    };
    store
        .change_in(room, change)
        .await
        .map_err(|trouble| of_trouble(&trouble))
}

#[cfg(test)]
mod tests {
    use protocol::digest::Digest;

    use super::*;

    #[test]
    fn the_smallest_chunks_take_room_too() {
        let header = |encoding| ChunkHeader {
            index: 0,
            digest: Digest::of(b"xx"),
            encoding,
            body_bytes: 1,
        };
        assert!(4096 < arriving_bytes(&header(Encoding::Raw)));
        assert_eq!(unpacked_bytes(&header(Encoding::Raw)), 0, "it is its body");
        assert_eq!(unpacked_bytes(&header(Encoding::Zstd)), 2);
    }
}
