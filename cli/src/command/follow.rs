//! Following a build: its events and log, across lost connections, until it ends or is stopped.

use std::{collections::BTreeMap, convert::Infallible};

use anyhow::anyhow;
use bytes::Bytes;
use protocol::{
    build::BuildId,
    message::client::{
        BuildRef, BuildSummary, ClientReply, ClientRequest, LogPosition, WatchEvent,
    },
    message::work::LOG_PIECE_BYTES_MAX,
};
use tokio::time::sleep;
use transport::{Stream, StreamError};

use crate::{
    args::LogsArgs,
    beacon::Lifetime,
    command::Context,
    error::CommandError,
    farm::{Farm, unexpected},
    reach::{Purpose, RECONNECT_PAUSE, RECONNECTS_MAX, Reached},
    render::{self, out::Printer, transcript::Transcript},
    signals::StopWanted,
};

/// Follows a build until it has ended, printing what happens. The first Ctrl-C stops the build.
///
/// # Errors
///
/// If the farm cannot be reached for a long time, or does not know the build.
pub(crate) async fn to_the_end(
    reached: &mut Reached,
    build: BuildId,
    (json, context): (bool, &Context),
) -> Result<Followed, CommandError> {
    let wanted = context.signals.stop_first();
    let stopper = reached.farm.clone();
    let printer = Printer::start()?;
    let mut watch = Watch::new((build.to_string(), true), reached, Transcript::new(json));
    let ended = tokio::select! {
        biased;
        ended = watch.run(&mut reached.farm, &printer) => ended,
        never = stop_when_wanted(stopper, build, &wanted) => never.map(|never| match never {}),
    };
    let written = printer.finish().await;
    let summary =
        ended?.ok_or_else(|| CommandError::farm(anyhow!("the build was not followed")))?;
    Ok(Followed { summary, written })
}

/// How a build ended that was followed.
#[derive(Debug)]
pub(crate) struct Followed {
    /// How it stands.
    pub(crate) summary: BuildSummary,
    /// Whether its log was written.
    pub(crate) written: Result<(), CommandError>,
}

/// `grange logs`: what there is of a build's log, and what comes until its end if asked to.
///
/// # Errors
///
/// If the farm cannot be reached or does not know the build, or standard output does not take the log.
pub(crate) async fn logs(args: &LogsArgs, context: &Context) -> Result<(), CommandError> {
    let read = &args.read;
    context
        .with_farm(&read.farm, Purpose::Ask, async |reached| {
            let printer = Printer::start()?;
            let what = (args.build.clone(), args.follow);
            let mut watch = Watch::new(what, reached, Transcript::new(read.json));
            watch.ends_with_output = true;
            let ended = watch.run(&mut reached.farm, &printer).await;
            let written = printer.finish().await;
            ended.and(written)
        })
        .await
}

/// Stops a build as soon as somebody wants it to, however long that takes to arrive.
async fn stop_when_wanted(
    mut farm: Farm,
    build: BuildId,
    wanted: &StopWanted,
) -> Result<Infallible, CommandError> {
    wanted.wait().await;
    render::note("stopping the build; once more to leave at once");
    let request = ClientRequest::Stop(build.to_string());
    loop {
        match farm.ask(&request).await {
            // The end is seen by who follows.
            Ok(_) => std::future::pending().await,
            Err(error) if error.is_farm() => {
                sleep(RECONNECT_PAUSE).await;
                // Whether that worked shows when it is asked again.
                let _tried = farm.reconnect().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One build that is followed, and how far.
struct Watch {
    build: BuildRef,
    follow: bool,
    /// Whether there is no use in going on when nobody takes the output any more.
    ends_with_output: bool,
    reconnects_max: u32,
    transcript: Transcript,
    /// How much of each attempt's log was printed: (job, attempt) to bytes.
    printed: BTreeMap<(u32, u32), u64>,
}

impl Watch {
    fn new((build, follow): (BuildRef, bool), reached: &Reached, transcript: Transcript) -> Self {
        Self {
            build,
            follow,
            ends_with_output: false,
            reconnects_max: match reached.lifetime {
                Lifetime::Service => RECONNECTS_MAX,
                Lifetime::OneCommand => 0,
            },
            transcript,
            printed: BTreeMap::new(),
        }
    }

    /// Prints until the build's end, or the end of what there is; gives how the build ended.
    async fn run(
        &mut self,
        farm: &mut Farm,
        printer: &Printer,
    ) -> Result<Option<BuildSummary>, CommandError> {
        let mut failures = 0;
        loop {
            let printed = self.printed.clone();
            match self.follow_once(farm, printer).await {
                Ok(summary) => return Ok(summary),
                Err(error) if !error.is_farm() => return Err(error),
                Err(error) if self.reconnects_max <= failures => return Err(error),
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
        printer: &Printer,
    ) -> Result<Option<BuildSummary>, CommandError> {
        let (reply, mut stream) = farm.open(&self.request()).await?;
        if !matches!(reply, ClientReply::Watching(_)) {
            return Err(unexpected(&reply));
        }
        while let Some((event, bytes)) = next(&mut stream).await.map_err(CommandError::farm)? {
            let mut written = true;
            for piece in self.transcript.event(&event, &bytes) {
                written &= printer.print(piece).await;
            }
            self.note_position(&event);
            if let WatchEvent::Ended(summary) = event {
                return Ok(Some(*summary));
            }
            if self.ends_with_output && !written {
                return Ok(None);
            }
        }
        if self.follow {
            let error = anyhow!("the coordinator stopped sending events");
            return Err(CommandError::farm(error));
        }
        Ok(None)
    }

    /// To be sent what was not printed yet.
    fn request(&self) -> ClientRequest {
        let printed = self.printed.iter();
        let from = printed.map(|(&(job, attempt), &offset)| LogPosition {
            job,
            attempt,
            offset,
        });
        ClientRequest::Watch {
            build: self.build.clone(),
            from: from.collect(),
            follow: self.follow,
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
