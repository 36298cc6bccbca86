//! The pump: bytes from memory into a QUIC stream, gathered and hashed by the receiver. What the network
//! and the processor allow, with nothing behind it.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use protocol::access::Role as Member;
use tokio::task::JoinSet;
use transport::{Congestion, Connection, Datagrams, Server, ServerLimits, Stream};

use super::Took;
use crate::{
    cache::process::{credentials, dial},
    clock::Stopwatch,
    report::say,
};

/// How many bytes are written and hashed at a time: a chunk of the usual size.
const PIECE_BYTES: usize = 512 << 10;
/// How much goes through before the clock starts, so that windows and datagrams have their size.
const WARM_BYTES: u64 = 64 << 20;

/// Serves streams of bytes until the process is killed.
///
/// # Errors
///
/// If the port cannot be had.
pub(crate) async fn serve_pump(farm: &Path, congestion: Congestion) -> Result<()> {
    let credentials = credentials(farm, Member::Cache)?;
    let listen = ([127, 0, 0, 1], 0).into();
    let limits = ServerLimits {
        congestion,
        ..ServerLimits::default()
    };
    let server = Server::bind(listen, &credentials, limits)?;
    say(&server.local_addr())?;
    let mut connections = JoinSet::new();
    while let Some(arriving) = server.accept().await {
        connections.spawn(async move {
            let connection = arriving.greet().await?.welcome(None).await?;
            while let Some(stream) = connection.accept().await {
                pump(stream).await?;
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn pump(mut stream: Stream) -> Result<()> {
    let bytes: Option<u64> = stream.receive.message().await?;
    let mut left = bytes.context("the client says how many bytes")?;
    let piece: Bytes = (0..=u8::MAX).cycle().take(PIECE_BYTES).collect();
    while 0 < left {
        stream.send.bytes(piece.clone()).await?;
        left = left.saturating_sub(PIECE_BYTES as u64);
    }
    stream.send.finish();
    Ok(())
}

/// Receives so many bytes.
///
/// # Errors
///
/// If they do not come.
pub(crate) async fn receive(
    (farm, address): (&Path, SocketAddr),
    bytes: u64,
    datagrams: Datagrams,
) -> Result<Took> {
    let connection = dial(farm, address, datagrams).await?;
    take(&connection, WARM_BYTES.min(bytes)).await?;
    let watch = Stopwatch::start();
    let pieces = take(&connection, bytes).await?;
    Ok(Took::of(watch.elapsed(), pieces, bytes))
}

async fn take(connection: &Connection, bytes: u64) -> Result<u64> {
    let mut stream = connection.open().await?;
    stream.send.message(&bytes).await?;
    stream.send.finish();
    let mut gathered = Vec::with_capacity(PIECE_BYTES);
    let (mut received, mut pieces) = (0, 0);
    while let Some(piece) = stream.receive.piece(PIECE_BYTES - gathered.len()).await? {
        received += piece.len() as u64;
        gathered.extend_from_slice(&piece);
        if gathered.len() == PIECE_BYTES {
            std::hint::black_box(protocol::digest::Digest::of(&gathered));
            gathered.clear();
            pieces += 1;
        }
    }
    ensure!(
        bytes <= received,
        "the pump gave {received} of {bytes} bytes"
    );
    Ok(pieces)
}
