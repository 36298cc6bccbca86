//! Peers that Grange is measured beside, each in its own process: `peers iroh-serve DIR SIZE COUNT` makes
//! blobs in a fresh file store and serves them; `peers iroh-read ADDRESS ID FILE COUNT IN_FLIGHT` reads
//! them over one connection, verified, into memory; `peers https-read ADDRESS CERTIFICATE FILE COUNT IN_FLIGHT`
//! reads what the lines of FILE name (a path and its BLAKE3 hash) from an HTTP/1.1 server, over TLS 1.3 and as
//! many connections as are in flight, verified. Each says one line of JSON.

mod https;

use std::{
    env,
    io::{Write as _, stdout},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::presets, protocol::Router};
use iroh_blobs::{ALPN, BlobsProtocol, Hash, get::request::get_blob, store::fs::FsStore};
use tokio::task::JoinSet;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match words[..] {
        ["iroh-serve", directory, size, count] => {
            runtime.block_on(serve(directory.as_ref(), size.parse()?, count.parse()?))
        }
        ["iroh-read", address, id, file, count, in_flight] => runtime.block_on(read(
            (address.parse()?, id.parse()?),
            file.as_ref(),
            (count.parse()?, in_flight.parse()?),
        )),
        ["https-read", address, certificate, file, count, in_flight] => {
            runtime.block_on(https::read(
                (address.parse()?, certificate.as_ref()),
                file.as_ref(),
                (count.parse()?, in_flight.parse()?),
            ))
        }
        _ => bail!("usage: peers iroh-serve | iroh-read | https-read, and their arguments"),
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Bytes that cannot be compressed, from a seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

async fn endpoint() -> Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .bind_addr((Ipv4Addr::LOCALHOST, 0))?;
    Ok(builder.bind().await?)
}

async fn serve(directory: &Path, size: usize, count: u64) -> Result<()> {
    let store = FsStore::load(directory.join("store")).await?;
    let mut hashes = String::new();
    for at in 0..count {
        let tag = store.blobs().add_bytes(noise(at << 24, size)).await?;
        hashes.push_str(&format!("{}\n", tag.hash));
    }
    store.sync_db().await?;
    std::fs::write(directory.join("hashes"), hashes)?;
    let endpoint = endpoint().await?;
    let address = endpoint
        .bound_sockets()
        .into_iter()
        .next()
        .context("it listens")?;
    let id = endpoint.id();
    let router = Router::builder(endpoint)
        .accept(ALPN, BlobsProtocol::new(&store, None))
        .spawn();
    say(&format!("[\"{address}\",\"{id}\"]"))?;
    std::future::pending::<()>().await;
    Ok(router.shutdown().await?)
}

async fn read(
    (address, id): (SocketAddr, EndpointId),
    file: &Path,
    (count, in_flight): (usize, usize),
) -> Result<()> {
    let hashes = std::fs::read_to_string(file)?;
    let hashes: Result<Vec<Hash>> = hashes.lines().map(|line| Ok(line.parse()?)).collect();
    let hashes: Arc<[Hash]> = hashes?.into();
    let endpoint = endpoint().await?;
    let address = EndpointAddr::new(id).with_ip_addr(address);
    let connection = endpoint.connect(address, ALPN).await?;
    let mut taken = (0.0, 0);
    // The first is to warm up.
    for count in [count / 8, count] {
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut readers = JoinSet::new();
        for _ in 0..in_flight {
            let (connection, hashes, next) =
                (connection.clone(), Arc::clone(&hashes), Arc::clone(&next));
            readers.spawn(async move {
                let mut bytes = 0;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if count <= at {
                        return anyhow::Ok(bytes);
                    }
                    let hash = hashes[at % hashes.len()];
                    bytes += get_blob(connection.clone(), hash).bytes().await?.len();
                }
            });
        }
        let mut bytes = 0;
        while let Some(read) = readers.join_next().await {
            bytes += read??;
        }
        taken = (start.elapsed().as_secs_f64(), bytes);
    }
    let (seconds, bytes) = taken;
    ensure!(0 < bytes, "nothing was read");
    say(&format!(
        "{{\"seconds\":{seconds},\"chunks\":{count},\"bytes\":{bytes}}}"
    ))
}
