//! The log of one attempt: kept on the worker's disk until the coordinator has it durably.
//!
//! Whoever writes appends to a spool file; a task of its own sends what is new and takes note of what is
//! durable. A writer that is too far ahead of the coordinator waits, and so the command behind it does:
//! no log takes unbounded room. After a lost connection sending goes on from what is durable, under the
//! same offsets, so that nothing is in the log twice.

mod spool;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    agent_line,
    message::work::{LOG_BYTES_MAX, LOG_PIECE_BYTES_MAX, LogAck, LogPiece, LogStart, WorkRequest},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task::spawn_blocking,
};
use tracing::debug;
use transport::{Connection, ReceiveHalf, SendHalf, StreamError};

use self::spool::{RESERVED_BYTES, Spool};
use crate::{
    clock,
    secrets::{Masker, Patterns, without_key_ids},
};

/// How far a writer may be ahead of what is durable, in bytes: some seconds of the loudest build on a
/// slow network, and little for a disk.
const AHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long to wait before a log stream that broke is opened again while its connection stands.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// How far the log is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Progress {
    /// Bytes in the spool.
    written: u64,
    /// Bytes that the coordinator has durably.
    durable: u64,
    /// Nothing will be written any more.
    closed: bool,
}

impl Progress {
    const fn is_stored(self) -> bool {
        self.closed && self.durable == self.written
    }
}

/// The log of one attempt. Clones are the same log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: Arc<PathBuf>,
    spool: Arc<Mutex<Spool>>,
    progress: watch::Sender<Progress>,
    /// What must not be in it.
    patterns: Arc<OnceLock<Arc<Patterns>>>,
}

impl Log {
    /// An empty log with its spool at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub(crate) async fn create(path: &Path) -> io::Result<Self> {
        Self::with_room(path, LOG_BYTES_MAX - RESERVED_BYTES).await
    }

    async fn with_room(path: &Path, room: u64) -> io::Result<Self> {
        let to = path.to_owned();
        let created = spawn_blocking(move || File::create(to)).await?;
        let spool = Spool::new(created?, room);
        Ok(Self {
            path: Arc::new(path.to_owned()),
            spool: Arc::new(Mutex::new(spool)),
            progress: watch::Sender::new(Progress::default()),
            patterns: Arc::default(),
        })
    }

    /// From here on, all that is written is masked.
    pub(crate) async fn mask(&self, patterns: &Arc<Patterns>) {
        let mut spool = self.spool.lock().await;
        spool.masker = Some(Masker::new(Arc::clone(patterns)));
        // An attempt asks for its secrets once.
        let _is_first = self.patterns.set(Arc::clone(patterns));
    }

    /// The text without what must not be in the log: it goes where the log goes.
    pub(crate) fn masked(&self, text: &str) -> String {
        let patterns = self.patterns.get();
        let masked = patterns.map_or_else(
            || text.as_bytes().to_vec(),
            |patterns| patterns.masked(text.as_bytes()),
        );
        String::from_utf8_lossy(&without_key_ids(&masked)).into_owned()
    }

    /// Appends a line of the farm's own. Lines over the log's limit are dropped.
    ///
    /// # Errors
    ///
    /// If the spool cannot be written.
    ///
    /// # Cancel safety
    ///
    /// The line is written or not, and whole if it is.
    pub(crate) async fn say(&self, text: &str) -> io::Result<()> {
        let line = agent_line::stamp(clock::wall_micros(), &self.masked(text));
        let spool = Arc::clone(&self.spool).lock_owned().await;
        self.write(spool, move |spool| spool.say(&line)).await
    }

    /// Appends what a command wrote, and takes it out of `bytes` for that. Waits while the coordinator
    /// is too far behind. What is over the log's limit is counted and dropped, and the log says so.
    ///
    /// # Errors
    ///
    /// If the spool cannot be written.
    ///
    /// # Cancel safety
    ///
    /// What is in `bytes` afterwards was not written; what is not there any more will be, before
    /// anything that is appended later.
    pub(crate) async fn append(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let near = |progress: &Progress| progress.written - progress.durable < AHEAD_BYTES_MAX;
        let mut progress = self.progress.subscribe();
        // Not kept: it holds a lock. The sender is part of `self`, so waiting cannot fail.
        drop(progress.wait_for(near).await);
        let spool = Arc::clone(&self.spool).lock_owned().await;
        let taken = std::mem::take(bytes);
        self.write(spool, move |spool| spool.append(&taken)).await
    }

    /// Writes and says how far the log is then, in one step that nobody breaks off.
    fn write(
        &self,
        mut spool: OwnedMutexGuard<Spool>,
        change: impl FnOnce(&mut Spool) -> io::Result<()> + Send + 'static,
    ) -> impl Future<Output = io::Result<()>> {
        let progress = self.progress.clone();
        let writing = spawn_blocking(move || {
            let changed = change(&mut spool);
            progress.send_modify(|progress| progress.written = spool.written);
            changed
        });
        async { writing.await.unwrap_or_else(|ended| Err(ended.into())) }
    }

    /// Writes what was held back, because it might have become a secret.
    ///
    /// # Errors
    ///
    /// If the spool cannot be written.
    pub(crate) async fn let_go(&self) -> io::Result<()> {
        let spool = Arc::clone(&self.spool).lock_owned().await;
        self.write(spool, Spool::let_go).await
    }

    /// How many bytes were dropped so far because the log is full.
    pub(crate) async fn dropped(&self) -> u64 {
        self.spool.lock().await.dropped
    }

    /// Nothing is written any more.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// Waits until all of a closed log is durable at the coordinator. Returns its length in bytes.
    pub(crate) async fn stored(&self) -> u64 {
        let mut progress = self.progress.subscribe();
        let stored = progress.wait_for(|progress| progress.is_stored()).await;
        stored.map_or(0, |progress| progress.written)
    }

    /// Sends the log over whatever connection there is, until all of it is stored.
    pub(crate) async fn stream(
        self,
        start: LogStart,
        mut connections: watch::Receiver<Option<Connection>>,
    ) {
        while !self.progress.borrow().is_stored() {
            let connection = match connections.wait_for(Option::is_some).await {
                Ok(connection) => connection.clone(),
                Err(_gone) => return,
            };
            let Some(connection) = connection else {
                continue;
            };
            let sent = tokio::select! {
                biased;
                () = self.all_stored() => return,
                sent = self.send_over(&connection, start) => sent,
            };
            if let Err(error) = sent {
                debug!(lease = %start.lease, error = %error, "log stream broke");
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    async fn all_stored(&self) {
        self.stored().await;
    }

    async fn send_over(&self, connection: &Connection, start: LogStart) -> Result<(), StreamError> {
        let stream = connection.open().await?;
        let (mut send, mut receive) = (stream.send, stream.receive);
        send.message(&WorkRequest::Log(start)).await?;
        // The first answer says where to go on.
        let Some(ack) = receive.message::<LogAck>().await? else {
            return Ok(());
        };
        self.take_ack(ack);
        tokio::select! {
            biased;
            taken = self.take_acks(&mut receive) => taken,
            sent = self.send_pieces(&mut send) => sent,
        }
    }

    async fn take_acks(&self, receive: &mut ReceiveHalf) -> Result<(), StreamError> {
        while let Some(ack) = receive.message::<LogAck>().await? {
            self.take_ack(ack);
        }
        Ok(())
    }

    /// What was durable stays so, and what was never written is not.
    fn take_ack(&self, ack: LogAck) {
        self.progress.send_modify(|progress| {
            progress.durable = ack.durable.clamp(progress.durable, progress.written);
        });
    }

    async fn send_pieces(&self, send: &mut SendHalf) -> Result<(), StreamError> {
        let mut progress = self.progress.subscribe();
        let mut next = progress.borrow().durable;
        loop {
            let now = match progress.wait_for(|progress| next < progress.written).await {
                Ok(now) => *now,
                Err(_gone) => return Ok(()),
            };
            let length = (now.written - next).min(u64::from(LOG_PIECE_BYTES_MAX));
            let Ok(bytes) = self.read(next, length).await else {
                // The spool is gone: so is the attempt.
                return Ok(());
            };
            let length = u32::try_from(bytes.len()).expect("pieces are small");
            let piece = LogPiece {
                offset: next,
                bytes: length,
            };
            next += u64::from(length);
            send.message(&piece).await?;
            send.bytes(bytes).await?;
        }
    }

    async fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let path = Arc::clone(&self.path);
        let reading = spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            File::open(&*path)?.read_exact_at(&mut bytes, from)?;
            Ok(bytes.into())
        });
        reading.await.unwrap_or_else(|ended| Err(ended.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_log_says_so_once_and_keeps_room_for_the_farms_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::with_room(&path, 10).await.unwrap();
        log.append(&mut b"12345678".to_vec()).await.unwrap();
        log.append(&mut b"90abc".to_vec()).await.unwrap();
        log.append(&mut b"def".to_vec()).await.unwrap();
        log.say("Phase complete").await.unwrap();
        assert_eq!(log.dropped().await, 6);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("1234567890\n[Container] "), "{text}");
        assert_eq!(text.matches("limit of 10 bytes").count(), 1, "{text}");
        assert!(text.ends_with(" Phase complete\n"), "{text}");
        let length = u64::try_from(text.len()).unwrap();
        assert_eq!(log.progress.borrow().written, length);
    }

    #[tokio::test]
    async fn a_line_of_the_farms_begins_where_lines_begin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::create(&path).await.unwrap();
        log.say("Running command printf a").await.unwrap();
        log.append(&mut b"a".to_vec()).await.unwrap();
        log.append(&mut Vec::new()).await.unwrap();
        log.say("Running command echo b").await.unwrap();
        log.append(&mut b"b\n".to_vec()).await.unwrap();
        log.say("Phase complete").await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines();
        let shown: Vec<_> = lines
            .map(|line| {
                if line.starts_with("[Container] ") {
                    "-"
                } else {
                    line
                }
            })
            .collect();
        assert_eq!(shown, ["-", "a", "-", "b", "-"], "{text}");
    }

    #[tokio::test]
    async fn a_log_is_stored_when_it_is_closed_and_all_of_it_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).await.unwrap();
        log.append(&mut b"12345".to_vec()).await.unwrap();
        let durable = |bytes| {
            log.progress
                .send_modify(|progress| progress.durable = bytes);
        };
        durable(5);
        assert!(!log.progress.borrow().is_stored(), "more may come");
        log.append(&mut b"6".to_vec()).await.unwrap();
        log.close();
        assert!(!log.progress.borrow().is_stored(), "a byte is missing");
        durable(6);
        assert_eq!(log.stored().await, 6);
    }

    /// Polls once and drops: what an interrupt does to whoever writes. Without tokio's budget, which
    /// may make what is ready wait.
    async fn broken_off(future: impl Future<Output = io::Result<()>>) {
        let mut future = std::pin::pin!(tokio::task::unconstrained(future));
        std::future::poll_fn(|context| {
            let _polled = future.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_that_is_broken_off_loses_nothing_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::create(&path).await.unwrap();
        let mut expected = String::new();
        for number in 0..100 {
            let line = format!("line {number} {}\n", "x".repeat(20_000));
            let mut bytes = line.clone().into_bytes();
            broken_off(log.append(&mut bytes)).await;
            assert!(bytes.is_empty(), "nothing was in the way");
            let mut last = b"STOPPED\n".to_vec();
            log.append(&mut last).await.unwrap();
            expected += &format!("{line}STOPPED\n");
        }
        let length = log.progress.borrow().written;
        assert_eq!(length, expected.len() as u64);
        let sent = log.read(0, length).await.unwrap();
        assert!(
            sent == expected.as_bytes(),
            "what is sent is what was written"
        );
    }

    #[tokio::test]
    async fn what_waits_for_the_coordinator_is_still_there_when_it_is_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).await.unwrap();
        log.progress
            .send_modify(|progress| progress.written = AHEAD_BYTES_MAX);
        let mut bytes = b"12345".to_vec();
        broken_off(log.append(&mut bytes)).await;
        assert_eq!(bytes, b"12345");
    }
}
