//! The task that writes logs: it takes what all sessions have for it at once, writes it, syncs each file
//! once, and only then tells the sessions and rings for the watchers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use protocol::build::BuildId;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use super::{AppendLogError, LogKey, files::LogFiles};
use crate::bells::Bells;

/// How many pieces may wait for the disk, and are written in one go: with the largest pieces 16 MiB. Past
/// it sessions wait, and so do the workers behind them.
const PIECES_MAX: usize = 64;

/// Hands pieces to the writer.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    orders: mpsc::Sender<Order>,
    closed: Arc<Closed>,
}

/// Logs that nobody writes to any more. They are told beside the queue, because a session that ends by
/// being cancelled cannot wait for a place in it. As many as there are sessions at most.
#[derive(Debug, Default)]
struct Closed {
    keys: Mutex<Vec<LogKey>>,
    added: Notify,
}

/// Closes a log when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenLog {
    key: LogKey,
    closed: Arc<Closed>,
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        self.closed.lock().push(self.key);
        self.closed.added.notify_one();
    }
}

impl Closed {
    fn lock(&self) -> MutexGuard<'_, Vec<LogKey>> {
        // Nothing is done under the lock that could leave the list half done.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Order {
    Append(Append),
    /// Close all logs of a build.
    Forget(BuildId, oneshot::Sender<()>),
}

#[derive(Debug)]
struct Append {
    key: LogKey,
    offset: u64,
    bytes: Bytes,
    done: oneshot::Sender<Result<u64, AppendLogError>>,
}

impl Append {
    fn refused(&self, source: io::Error) -> AppendLogError {
        AppendLogError::Io {
            path: PathBuf::from(format!("{}.{}", self.key.job, self.key.attempt)),
            source,
        }
    }
}

/// What the task runs on.
#[derive(Debug)]
pub(crate) struct Orders {
    orders: mpsc::Receiver<Order>,
    closed: Arc<Closed>,
}

/// A writer and what its task, [`run`], takes.
pub(crate) fn channel() -> (LogWriter, Orders) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let closed = Arc::<Closed>::default();
    let writer = LogWriter {
        orders: sender,
        closed: Arc::clone(&closed),
    };
    let orders = Orders {
        orders: receiver,
        closed,
    };
    (writer, orders)
}

impl LogWriter {
    /// Appends a piece of log; gives how many bytes of the log are durable then. An empty piece at 0 asks
    /// how many there are.
    ///
    /// # Errors
    ///
    /// If the piece does not fit, the disk refuses, or the coordinator stops.
    pub(crate) async fn append(
        &self,
        key: LogKey,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, AppendLogError> {
        let stopped = || AppendLogError::Io {
            path: PathBuf::from(format!("{}.{}", key.job, key.attempt)),
            source: io::Error::other("the coordinator stops"),
        };
        let (done, answer) = oneshot::channel();
        let append = Append {
            key,
            offset,
            bytes,
            done,
        };
        let sent = self.orders.send(Order::Append(append)).await;
        sent.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Lets the log be closed when what this gives is dropped.
    pub(crate) fn opened(&self, key: LogKey) -> OpenLog {
        let closed = Arc::clone(&self.closed);
        OpenLog { key, closed }
    }

    /// Closes all logs of a build, before they are deleted.
    pub(crate) async fn forget(&self, build: BuildId) {
        let (done, answer) = oneshot::channel();
        if self.orders.send(Order::Forget(build, done)).await.is_ok() {
            let _closed = answer.await;
        }
    }
}

/// Writes until stopped; what was taken by then is written.
pub(crate) async fn run(
    mut files: LogFiles,
    mut orders: Orders,
    bells: Arc<Bells>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(PIECES_MAX);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            count = orders.orders.recv_many(&mut batch, PIECES_MAX) => if count == 0 {
                return;
            },
            () = orders.closed.added.notified() => {}
        }
        let closed = mem::take(&mut *orders.closed.lock());
        if !closed.is_empty() {
            // What their sessions sent comes before, and is in the queue by now.
            let waiting = std::iter::from_fn(|| orders.orders.try_recv().ok());
            batch.extend(waiting.take(PIECES_MAX));
        }
        let work = mem::take(&mut batch);
        let written = spawn_blocking(move || {
            let grown = write(&mut files, work);
            // One that somebody writes to all the same is opened again.
            for key in closed {
                files.close(key);
            }
            (files, grown)
        });
        let grown;
        (files, grown) = written.await.expect("writing logs does not panic");
        for key in grown {
            bells.log_grown(key);
        }
    }
}

/// Carries out a batch; gives the logs that have grown.
fn write(files: &mut LogFiles, batch: Vec<Order>) -> BTreeSet<LogKey> {
    // Of each log: whom to tell, in order. A piece that was refused was answered at once.
    let mut waiting = BTreeMap::<LogKey, Vec<oneshot::Sender<_>>>::new();
    let mut grown = BTreeSet::new();
    let mut bytes = 0;
    let has_room = files.has_room();
    for order in batch {
        match order {
            Order::Append(append)
                if !has_room && files.grows(append.key, append.offset, &append.bytes) =>
            {
                // As if the disk had none: who sends it waits.
                let refused = append.refused(io::ErrorKind::StorageFull.into());
                let _told = append.done.send(Err(refused));
            }
            Order::Append(append) => {
                match files.append(append.key, append.offset, &append.bytes) {
                    Ok(()) => {
                        bytes += append.bytes.len() as u64;
                        waiting.entry(append.key).or_default().push(append.done);
                    }
                    // Who asked may be gone.
                    Err(error) => {
                        let _told = append.done.send(Err(error));
                    }
                }
            }
            Order::Forget(build, done) => {
                files.close_all(build);
                let _told = done.send(());
            }
        }
    }
    metrics::counter!("grange_logs_written_bytes_total").increment(bytes);
    for (key, dones) in waiting {
        grown.insert(key);
        tell(files, key, dones);
    }
    grown
}

/// Syncs a log and tells everybody who waits for it.
fn tell(
    files: &mut LogFiles,
    key: LogKey,
    dones: Vec<oneshot::Sender<Result<u64, AppendLogError>>>,
) {
    metrics::counter!("grange_log_syncs_total").increment(1);
    let synced = files.sync(key);
    for done in dones {
        let answer = match &synced {
            Ok(durable) => Ok(*durable),
            Err(AppendLogError::Io { path, source }) => Err(AppendLogError::Io {
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            }),
            Err(_) => unreachable!("only the system refuses to sync"),
        };
        // Who asked may be gone; the bytes are there all the same.
        let _told = done.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use protocol::job::JobId;

    use super::*;
    use crate::logs::Logs;

    #[tokio::test]
    async fn a_piece_is_durable_when_its_sender_is_told_and_watchers_hear_of_it() {
        let home = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::open(home.path().join("logs")).unwrap());
        let bells = Arc::new(Bells::default());
        let (writer, orders) = channel();
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let files = LogFiles::new(Arc::clone(&logs));
        tasks.spawn(run(files, orders, Arc::clone(&bells), stop.clone()));

        let build = BuildId(7);
        let bell = bells.listen(build);
        let key = |index| LogKey {
            job: JobId { build, index },
            attempt: 1,
        };
        let appends = [(0, 0, "ab"), (1, 0, "x"), (0, 2, "cd")];
        for (index, offset, text) in appends {
            let durable = writer.append(key(index), offset, Bytes::from(text)).await;
            assert_eq!(durable.unwrap(), offset + text.len() as u64);
        }
        bell.rung().await;
        let lengths = logs.lengths(build).unwrap();
        assert_eq!(lengths.into_values().collect::<Vec<_>>(), [4, 1]);
        let refused = writer.append(key(1), 5, Bytes::from("y")).await;
        assert!(matches!(
            refused,
            Err(AppendLogError::Gap { length: 1, .. })
        ));
        writer.forget(build).await;
        logs.delete(build).unwrap();
        assert!(logs.lengths(build).unwrap().is_empty());
        stop.cancel();
        tasks.join_all().await;
    }

    #[test]
    fn logs_leave_the_last_of_a_disk_to_the_journal() {
        let home = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::open(home.path().join("logs")).unwrap());
        let build = BuildId(7);
        let key = LogKey {
            job: JobId { build, index: 0 },
            attempt: 1,
        };
        let append = |files: &mut LogFiles, offset, text: &'static str| {
            let (done, mut answer) = oneshot::channel();
            let bytes = Bytes::from(text);
            let append = Append {
                key,
                offset,
                bytes,
                done,
            };
            write(files, vec![Order::Append(append)]);
            answer.try_recv().unwrap()
        };
        let mut files = LogFiles::new(Arc::clone(&logs));
        assert_eq!(append(&mut files, 0, "ab").unwrap(), 2);
        let mut files = LogFiles::on_a_full_disk(logs);
        let refused = append(&mut files, 2, "cd").unwrap_err();
        assert!(
            matches!(&refused, AppendLogError::Io { source, .. }
                if source.kind() == io::ErrorKind::StorageFull),
            "{refused:?}"
        );
        // How much there is can still be asked, and what comes again needs no room.
        assert_eq!(append(&mut files, 0, "").unwrap(), 2);
        assert_eq!(append(&mut files, 0, "ab").unwrap(), 2);
        assert_eq!(append(&mut files, 1, "b").unwrap(), 2);
        append(&mut files, 1, "bc").unwrap_err();
    }

    #[tokio::test]
    async fn a_log_is_closed_when_its_session_is_cancelled() {
        let home = tempfile::tempdir().unwrap();
        let logs = Arc::new(Logs::open(home.path().join("logs")).unwrap());
        let (writer, orders) = channel();
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let files = LogFiles::new(Arc::clone(&logs));
        tasks.spawn(run(files, orders, Arc::default(), stop.clone()));
        let key = |index| LogKey {
            job: JobId {
                build: BuildId(7),
                index,
            },
            attempt: 1,
        };
        let (told, written) = oneshot::channel();
        let session = writer.clone();
        let session = tasks.spawn(async move {
            let _open = session.opened(key(0));
            session.append(key(0), 0, Bytes::from("ab")).await.unwrap();
            told.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        written.await.unwrap();
        assert!(logs.lock().contains_key(&key(0)));
        session.abort();
        while !session.is_finished() {
            tokio::task::yield_now().await;
        }
        // The second answer comes when all that was there at the first is carried out.
        for offset in 0..2 {
            let durable = writer.append(key(1), offset, Bytes::from("x")).await;
            assert_eq!(durable.unwrap(), offset + 1);
        }
        assert!(!logs.lock().contains_key(&key(0)));
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
