//! The log of one attempt: kept on the worker's disk until the coordinator has it durably.
//!
//! Whoever writes appends to a spool file; a task of its own sends what is new and takes note of what is
//! durable. A writer that is too far ahead of the coordinator waits, and so the command behind it does:
//! no log takes unbounded room. After a lost connection sending goes on from what is durable, under the
//! same offsets, so that nothing is in the log twice.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::message::work::{
    LOG_BYTES_MAX, LOG_PIECE_BYTES_MAX, LogAck, LogPiece, LogStart, WorkRequest,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
    sync::{Mutex, watch},
};
use tracing::debug;
use transport::{Connection, ReceiveHalf, SendHalf, StreamError};

use crate::{agent_line, clock};

/// How far a writer may be ahead of what is durable, in bytes: some seconds of the loudest build on a
/// slow network, and little for a disk.
const AHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is left free for the farm's own lines when commands have written all that they may, in bytes.
const RESERVED_BYTES: u64 = 4 * 1024 * 1024;

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

#[derive(Debug)]
struct Spool {
    file: File,
    written: u64,
    /// Bytes that were not taken, because the log is full.
    dropped: u64,
}

/// The log of one attempt. Clones are the same log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: Arc<PathBuf>,
    spool: Arc<Mutex<Spool>>,
    progress: watch::Sender<Progress>,
    /// The most bytes that commands may write.
    room: u64,
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
        let spool = Spool {
            file: File::create(path).await?,
            written: 0,
            dropped: 0,
        };
        Ok(Self {
            path: Arc::new(path.to_owned()),
            spool: Arc::new(Mutex::new(spool)),
            progress: watch::Sender::new(Progress::default()),
            room,
        })
    }

    /// Appends a line of the farm's own. Lines over the log's limit are dropped.
    ///
    /// # Errors
    ///
    /// If the spool cannot be written.
    pub(crate) async fn say(&self, text: &str) -> io::Result<()> {
        let line = agent_line::stamp(clock::wall_micros(), text);
        let mut spool = self.spool.lock().await;
        self.push(&mut spool, line.as_bytes(), self.room + RESERVED_BYTES)
            .await
    }

    /// Appends what a command wrote. Waits while the coordinator is too far behind. What is over the
    /// log's limit is counted and dropped, and the log says so.
    ///
    /// # Errors
    ///
    /// If the spool cannot be written.
    pub(crate) async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let near = |progress: &Progress| progress.written - progress.durable < AHEAD_BYTES_MAX;
        let mut progress = self.progress.subscribe();
        // Not kept: it holds a lock. The sender is part of `self`, so waiting cannot fail.
        drop(progress.wait_for(near).await);
        let mut spool = self.spool.lock().await;
        let room = usize::try_from(self.room.saturating_sub(spool.written)).unwrap_or(usize::MAX);
        let (taken, over) = bytes.split_at(bytes.len().min(room));
        self.push(&mut spool, taken, self.room).await?;
        if !over.is_empty() {
            if spool.dropped == 0 {
                let text = format!(
                    "The log has reached its limit of {} bytes: what commands write from here on is \
                     dropped",
                    self.room
                );
                let line = format!("\n{}", agent_line::stamp(clock::wall_micros(), &text));
                let limit = self.room + RESERVED_BYTES;
                self.push(&mut spool, line.as_bytes(), limit).await?;
            }
            spool.dropped += over.len() as u64;
        }
        Ok(())
    }

    async fn push(&self, spool: &mut Spool, bytes: &[u8], limit: u64) -> io::Result<()> {
        if bytes.is_empty() || limit < spool.written.saturating_add(bytes.len() as u64) {
            return Ok(());
        }
        spool.file.write_all(bytes).await?;
        spool.file.flush().await?;
        spool.written += bytes.len() as u64;
        self.progress
            .send_modify(|progress| progress.written = spool.written);
        Ok(())
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
            if bytes.is_empty() {
                continue;
            }
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
        let mut file = File::open(&*self.path).await?;
        file.seek(io::SeekFrom::Start(from)).await?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).await?;
        Ok(bytes.into())
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
        log.append(b"12345678").await.unwrap();
        log.append(b"90abc").await.unwrap();
        log.append(b"def").await.unwrap();
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
    async fn a_log_is_stored_when_it_is_closed_and_all_of_it_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("log")).await.unwrap();
        log.append(b"12345").await.unwrap();
        let durable = |bytes| {
            log.progress
                .send_modify(|progress| progress.durable = bytes);
        };
        durable(5);
        assert!(!log.progress.borrow().is_stored(), "more may come");
        log.append(b"6").await.unwrap();
        log.close();
        assert!(!log.progress.borrow().is_stored(), "a byte is missing");
        durable(6);
        assert_eq!(log.stored().await, 6);
    }
}
