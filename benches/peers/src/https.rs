//! A client of an HTTP/1.1 server over TLS 1.3: connections that stay open, one request at a time on each,
//! bodies gathered and hashed.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::say;

/// How much is read ahead, in bytes: some TLS records.
const AHEAD_BYTES: usize = 256 << 10;

type Wire = BufReader<TlsStream<TcpStream>>;

pub(crate) async fn read(
    (address, certificate): (SocketAddr, &Path),
    file: &Path,
    (count, in_flight): (usize, usize),
) -> Result<()> {
    let list = std::fs::read_to_string(file)?;
    let rows = list.lines().map(|line| {
        let (path, hash) = line
            .split_once(' ')
            .context("a line is a path and a hash")?;
        Ok((path.to_owned(), blake3::Hash::from_hex(hash)?))
    });
    let rows: Result<Vec<(String, blake3::Hash)>> = rows.collect();
    let rows: Arc<[_]> = rows?.into();
    let connector = connector(certificate)?;
    let mut wires = Vec::new();
    for _ in 0..in_flight {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let tls = connector
            .connect(ServerName::try_from("localhost")?, tcp)
            .await?;
        wires.push(BufReader::with_capacity(AHEAD_BYTES, tls));
    }
    let mut taken = (0.0, 0);
    // The first is to warm up.
    for count in [count / 8, count] {
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let mut readers = JoinSet::new();
        for mut wire in wires.drain(..) {
            let (rows, next) = (Arc::clone(&rows), Arc::clone(&next));
            readers.spawn(async move {
                let (mut bytes, mut body) = (0, Vec::new());
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if count <= at {
                        return anyhow::Ok((wire, bytes));
                    }
                    let (path, hash) = &rows[at % rows.len()];
                    get(&mut wire, path, &mut body).await?;
                    ensure!(blake3::hash(&body) == *hash, "{path} has other bytes");
                    bytes += body.len();
                }
            });
        }
        let mut bytes = 0;
        while let Some(read) = readers.join_next().await {
            let (wire, read) = read??;
            wires.push(wire);
            bytes += read;
        }
        taken = (start.elapsed().as_secs_f64(), bytes);
    }
    let (seconds, bytes) = taken;
    say(&format!(
        "{{\"seconds\":{seconds},\"chunks\":{count},\"bytes\":{bytes}}}"
    ))
}

fn connector(certificate: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(certificate)?))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn get(wire: &mut Wire, path: &str, body: &mut Vec<u8>) -> Result<()> {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wire.write_all(request.as_bytes()).await?;
    wire.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.read_u8().await?);
        ensure!(head.len() < 4096, "the head of an answer does not end");
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "the server says {head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.context("an answer has a length")?.parse()?;
    body.resize(length, 0);
    wire.read_exact(body).await?;
    Ok(())
}
