//! The session of one attempt's log: pieces in, acknowledgements out, each after its bytes are durable.

use std::{io, time::Duration};

use bytes::Bytes;
use protocol::{
    lease::LeaseId,
    message::work::{LOG_PIECE_BYTES_MAX, LogAck, LogPiece, LogStart},
    name::WorkerName,
    report::Chain,
};
use scheduler::Event;
use tokio::time::sleep;
use tracing::{debug, warn};
use transport::{Stream, StreamError};

use crate::{
    farm::Farm,
    logs::{AppendLogError, LogKey},
};

/// How long the disk gets before a piece that it had no room for is written again. Meanwhile the worker
/// waits, and so does what it runs.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// How many bytes of a log are taken before it is asked again whether the attempt goes on: so much at most comes to
/// the log of a phase that is stored.
const CHECKED_BYTES: u64 = 1024 * 1024;

/// The longest message before the bytes of a piece, in bytes: two numbers.
const PIECE_HEADER_BYTES_MAX: usize = 1024;

/// Why a log stream was given up. The worker opens another and goes on from what was acknowledged.
#[derive(Debug, thiserror::Error)]
enum LogSessionError {
    /// The stream broke.
    #[error("log stream broke")]
    Stream {
        /// How.
        #[from]
        source: StreamError,
    },
    /// Nobody gave this attempt to this worker. A worker that says so is confused, or lies.
    #[error("attempt {} at job {} under {} is not one of worker {worker}", start.attempt, start.job, start.lease)]
    NotYours {
        /// What it says.
        start: LogStart,
        /// Who says it.
        worker: WorkerName,
    },
    /// The attempt is stored with the log that it had, or its build is deleted.
    #[error("attempt {} at job {} is over, and its log is kept as it is", key.attempt, key.job)]
    Over {
        /// Whose log it is.
        key: LogKey,
    },
    /// A piece is larger than any may be, or cannot be appended.
    #[error("log piece cannot be taken")]
    Append {
        /// Why.
        #[from]
        source: AppendLogError,
    },
    /// The coordinator stops.
    #[error("the coordinator stops")]
    Stopped,
}

/// Takes the log that comes over `stream` from `worker`.
pub(crate) async fn run(mut stream: Stream, start: LogStart, worker: &WorkerName, farm: &Farm) {
    let key = LogKey {
        job: start.job,
        attempt: start.attempt,
    };
    if let Err(error) = check(start, worker, farm).await {
        warn!(%worker, error = %Chain(&error), "log stream refused");
        metrics::counter!("grange_log_streams_refused_total").increment(1);
        give_up(&mut stream);
        return;
    }
    // Closed however this ends: the connection may end it in the middle.
    let _open = farm.log_writer.opened(key);
    if let Err(error) = take(&mut stream, (key, start.lease), farm).await {
        if let LogSessionError::Append { .. } = error {
            metrics::counter!("grange_log_streams_refused_total").increment(1);
        }
        debug!(job = %start.job, attempt = start.attempt, error = %Chain(&error), "log stream ended early");
        give_up(&mut stream);
    }
}

fn give_up(stream: &mut Stream) {
    stream.send.reset();
    stream.receive.stop();
}

/// Checks that the log is this worker's to write. The lease may be over: a lost attempt's output is kept.
async fn check(start: LogStart, worker: &WorkerName, farm: &Farm) -> Result<(), LogSessionError> {
    let record = farm
        .dispatcher
        .ask(move |state| scheduler::attempt(state, start.job, start.attempt))
        .await
        .map_err(|_| LogSessionError::Stopped)?;
    match record {
        Some(record) if record.lease == start.lease && record.worker == *worker => Ok(()),
        _ => Err(LogSessionError::NotYours {
            start,
            worker: worker.clone(),
        }),
    }
}

/// Whether what an attempt writes is still to be kept: it runs, or was lost.
async fn goes_on(key: LogKey, farm: &Farm) -> Result<(), LogSessionError> {
    let record = farm
        .dispatcher
        .ask(move |state| scheduler::attempt(state, key.job, key.attempt))
        .await
        .map_err(|_| LogSessionError::Stopped)?;
    match record {
        Some(record) if !record.is_stored => Ok(()),
        _ => Err(LogSessionError::Over { key }),
    }
}

async fn take(
    stream: &mut Stream,
    (key, lease): (LogKey, LeaseId),
    farm: &Farm,
) -> Result<(), LogSessionError> {
    // What is there already need not be sent again.
    let durable = append(farm, (key, lease), (0, Bytes::new())).await?;
    stream.send.message(&LogAck { durable }).await?;
    let mut is_heard = 0 < durable;
    if is_heard {
        tell_heard(farm, lease).await?;
    }
    let mut unchecked = CHECKED_BYTES;
    while let Some(piece) = receive_piece(stream).await? {
        let length = usize::try_from(piece.bytes).unwrap_or(usize::MAX);
        if LOG_PIECE_BYTES_MAX < piece.bytes {
            let bytes = length;
            return Err(AppendLogError::PieceTooLarge { bytes }.into());
        }
        let bytes = stream.receive.bytes(length).await?;
        unchecked += u64::from(piece.bytes);
        if CHECKED_BYTES <= unchecked {
            goes_on(key, farm).await?;
            unchecked = 0;
        }
        if !is_heard && 0 < length {
            tell_heard(farm, lease).await?;
            is_heard = true;
        }
        let durable = append(farm, (key, lease), (piece.offset, bytes)).await?;
        stream.send.message(&LogAck { durable }).await?;
    }
    stream.send.finish();
    Ok(())
}

/// Appends, and waits while the disk has no room for it. What the disk refuses is not the worker's doing, so it
/// counts as heard.
async fn append(
    farm: &Farm,
    (key, lease): (LogKey, LeaseId),
    (offset, bytes): (u64, Bytes),
) -> Result<u64, LogSessionError> {
    loop {
        match farm.log_writer.append(key, offset, bytes.clone()).await {
            Ok(durable) => return Ok(durable),
            Err(AppendLogError::Io { path, source }) => {
                tell_heard(farm, lease).await?;
                if !is_full(&source) {
                    return Err(AppendLogError::Io { path, source }.into());
                }
                warn!(path = %path.display(), error = %source, "log waits for room on the disk");
                sleep(FULL_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says that an attempt has begun: each begins with a line of its own.
async fn tell_heard(farm: &Farm, lease: LeaseId) -> Result<(), LogSessionError> {
    let told = farm.dispatcher.tell(Event::Heard { lease }).await;
    told.map_err(|_| LogSessionError::Stopped)
}

async fn receive_piece(stream: &mut Stream) -> Result<Option<LogPiece>, StreamError> {
    stream.receive.message_within(PIECE_HEADER_BYTES_MAX).await
}

/// Whether there may be room later.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
