//! Following a build: its events and log, across lost connections, until it ends or is stopped.

use std::{collections::BTreeMap, time::Duration};

use anyhow::anyhow;
use bytes::Bytes;
use protocol::{
    build::BuildId,
    message::client::{BuildSummary, ClientReply, ClientRequest, LogPosition, WatchEvent},
    message::work::LOG_PIECE_BYTES_MAX,
};
use tokio::{signal, sync::mpsc, time::sleep};
use transport::{Stream, StreamError};

use crate::{
    args::LogsArgs,
    error::{CommandError, exit},
    farm::{Farm, unexpected},
    render::{self, transcript::Transcript},
};

/// How often a lost connection is tried again: with the pause below, for about ten minutes, which is
/// longer than a coordinator takes to start again.
const RECONNECTS_MAX: u32 = 300;
/// How long to wait between tries.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// Follows a build until it has ended, printing what happens.
///
/// Ctrl-C stops the build; a second one leaves at once.
///
/// # Errors
///
/// If the farm cannot be reached for a long time, or does not know the build.
pub(crate) async fn to_the_end(
    farm: &mut Farm,
    build: BuildId,
    json: bool,
) -> Result<BuildSummary, CommandError> {
    let (stops, mut stop_wanted) = mpsc::channel(1);
    let interrupts = async {
        for _ in 0..2 {
            if signal::ctrl_c().await.is_err() {
                // Without signals the build can still be followed.
                std::future::pending::<()>().await;
            }
            // The second does not fit while the first is looked at, and need not.
            let _taken_or_full = stops.try_send(());
            render::note("stopping the build; once more to leave at once");
        }
        CommandError::left_at_once()
    };
    let mut watch = Watch::new(build, json);
    tokio::select! {
        biased;
        error = interrupts => Err(error),
        ended = watch.run(farm, &mut stop_wanted) => ended,
    }
}

/// Prints what there is of a build's log, and what comes until its end if asked to.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the build.
pub(crate) async fn print_log(farm: &Farm, args: &LogsArgs) -> Result<(), CommandError> {
    let request = ClientRequest::Watch {
        build: args.build.clone(),
        from: Vec::new(),
        follow: args.follow,
    };
    let (_, mut stream) = farm.open(&request).await?;
    let mut transcript = Transcript::new(args.read.json);
    while let Some((event, bytes)) = next(&mut stream).await.map_err(CommandError::farm)? {
        transcript.event(&event, &bytes);
    }
    Ok(())
}

/// One build that is followed, and how far.
struct Watch {
    build: BuildId,
    transcript: Transcript,
    /// How much of each attempt's log was printed: (job, attempt) to bytes.
    printed: BTreeMap<(u32, u32), u64>,
}

impl Watch {
    fn new(build: BuildId, json: bool) -> Self {
        Self {
            build,
            transcript: Transcript::new(json),
            printed: BTreeMap::new(),
        }
    }

    async fn run(
        &mut self,
        farm: &mut Farm,
        stop_wanted: &mut mpsc::Receiver<()>,
    ) -> Result<BuildSummary, CommandError> {
        let mut failures = 0;
        loop {
            let printed = self.printed.clone();
            match self.follow_once(farm, stop_wanted).await {
                Ok(summary) => return Ok(summary),
                Err(error) if !error.is_farm() => return Err(error),
                Err(error) if failures == RECONNECTS_MAX => return Err(error),
                Err(_) if failures == 0 => render::note("lost the farm; trying to reach it again"),
                Err(_) => {}
            }
            failures = if printed == self.printed {
                failures + 1
            } else {
                1
            };
            sleep(RECONNECT_PAUSE).await;
            // Whether that worked shows when the build is asked for again.
            let _tried = farm.reconnect().await;
        }
    }

    async fn follow_once(
        &mut self,
        farm: &Farm,
        stop_wanted: &mut mpsc::Receiver<()>,
    ) -> Result<BuildSummary, CommandError> {
        let from = self
            .printed
            .iter()
            .map(|(&(job, attempt), &offset)| LogPosition {
                job,
                attempt,
                offset,
            });
        let request = ClientRequest::Watch {
            build: self.build.to_string(),
            from: from.collect(),
            follow: true,
        };
        let (reply, mut stream) = farm.open(&request).await?;
        if !matches!(reply, ClientReply::Watching(_)) {
            return Err(unexpected(&reply));
        }
        loop {
            // Reading an event is not cancel safe, so a wish to stop is carried out beside it.
            let mut event = Box::pin(next(&mut stream));
            let event = loop {
                tokio::select! {
                    biased;
                    event = &mut event => break event,
                    Some(()) = stop_wanted.recv() => {
                        farm.ask(&ClientRequest::Stop(self.build.to_string())).await?;
                    }
                }
            };
            let Some((event, bytes)) = event.map_err(CommandError::farm)? else {
                return Err(CommandError::farm(anyhow!(
                    "the coordinator stopped sending events"
                )));
            };
            self.note_position(&event);
            self.transcript.event(&event, &bytes);
            if let WatchEvent::Ended(summary) = event {
                return Ok(*summary);
            }
        }
    }

    fn note_position(&mut self, event: &WatchEvent) {
        if let WatchEvent::Log {
            job,
            attempt,
            offset,
            bytes,
        } = event
        {
            let end = offset + u64::from(*bytes);
            self.printed.insert((job.index, *attempt), end);
        }
    }
}

/// The next event, with its log bytes if it has any; `None` at the end.
async fn next(stream: &mut Stream) -> Result<Option<(WatchEvent, Bytes)>, StreamError> {
    let Some(event) = stream.receive.message::<WatchEvent>().await? else {
        return Ok(None);
    };
    let bytes = match &event {
        WatchEvent::Log { bytes, .. } => {
            let length = (*bytes).min(LOG_PIECE_BYTES_MAX);
            stream.receive.bytes(length as usize).await?
        }
        _ => Bytes::new(),
    };
    Ok(Some((event, bytes)))
}

impl CommandError {
    /// Somebody pressed Ctrl-C twice.
    fn left_at_once() -> Self {
        Self::with_code(
            exit::STOPPED,
            anyhow!("left; the build may still be ending"),
        )
    }
}
