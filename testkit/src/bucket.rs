//! An S3-compatible server on loopback, with a bucket: what a cold tier stands on.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

/// The bucket's name.
pub const BUCKET: &str = "grange";
/// The credentials that the server knows.
const ACCESS_KEY: &str = "AKIAGRANGETESTS";
const SECRET_KEY: &str = "only the tests know it";

/// A bucket, and the server in front of it while it runs.
#[derive(Debug)]
pub struct Bucket {
    directory: TempDir,
    address: SocketAddr,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Bucket {
    /// An empty bucket, and a server that has it.
    ///
    /// # Panics
    ///
    /// If the server does not start.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("grange-bucket-")
            .tempdir()
            .unwrap();
        fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut bucket = Self {
            directory,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            server: None,
        };
        bucket.start_server();
        bucket
    }

    /// The settings of a cache that has it as its cold tier, for `[cache]`.
    pub fn settings(&self) -> String {
        let address = self.address;
        format!("cold_bucket = \"{BUCKET}\"\ncold_endpoint = \"http://{address}\"\n")
    }

    /// The variables with the credentials.
    pub fn environment() -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Starts the server, where it was if it ran before.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start_server(&mut self) {
        let files = FileSystem::new(self.directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let (told, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let at = self.address;
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let served = runtime.unwrap().block_on(async {
                let listener = TcpListener::bind(at).await?;
                let _test_is_gone = told.send(listener.local_addr()?);
                tokio::select! {
                    served = serve(listener, service) => served,
                    _ = stopped => Ok(()),
                }
            });
            served.unwrap();
        });
        self.address = address.recv().expect("the server listens");
        self.server = Some(Server { stop, thread });
    }

    /// Stops the server; what is in the bucket stays.
    ///
    /// # Panics
    ///
    /// If the server has failed.
    pub fn stop_server(&mut self) {
        if let Some(Server { stop, thread }) = self.server.take() {
            drop(stop);
            thread.join().expect("the server has not failed");
        }
    }

    /// The names of the objects that start so, ascending, with the files that they are.
    ///
    /// # Panics
    ///
    /// If the bucket cannot be read.
    pub fn objects(&self, start: &str) -> Vec<(String, PathBuf)> {
        let root = self.directory.path().join(BUCKET);
        let mut found = Vec::new();
        walk(&root, &mut found).unwrap();
        let mut objects: Vec<(String, PathBuf)> = found
            .into_iter()
            .filter_map(|path| {
                let name = path.strip_prefix(&root).ok()?.to_str()?.to_owned();
                name.starts_with(start).then_some((name, path))
            })
            .collect();
        objects.sort();
        objects
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.server = None;
    }
}

async fn serve(listener: TcpListener, service: S3Service) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        let service = service.clone();
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // Who breaks off is no matter of the server's.
            drop(
                builder
                    .serve_connection(TokioIo::new(socket), service)
                    .await,
            );
        });
        while connections.try_join_next().is_some() {}
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}
