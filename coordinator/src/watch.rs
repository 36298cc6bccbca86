//! Watching a build: phases as they change and log bytes as they become durable, from where the client
//! already is, to the end.
//!
//! A watcher keeps only positions. What there is to send it reads from the scheduler and the log files
//! when the client is ready for it, so a slow client holds nothing and nobody up.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    build::{BuildId, Status},
    job::JobId,
    message::{
        client::{BuildSummary, LogPosition, PhaseDetail, WatchEvent},
        work::RestoreProgress,
    },
};
use tokio::task::spawn_blocking;
use transport::{SendHalf, StreamError};

use crate::{bells::News, clock, farm::Farm, logs::LogKey};

/// How many log bytes go to a watcher at once: enough to keep a connection busy, little enough that the
/// logs of units that run side by side take turns.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Why a watch ended before all was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The client is gone.
    #[error("failed to send to the client")]
    Stream {
        /// How.
        #[from]
        source: StreamError,
    },
    /// A log cannot be read. The client has to hear that what it got is not all.
    #[error("failed to read the logs of build {build}")]
    Log {
        /// Of which build.
        build: BuildId,
        /// What the system says.
        source: io::Error,
    },
}

/// Sends what happens to a build, from the positions in `from` on; without `follow` only what has happened
/// so far. Ends when the build has ended or was deleted, or the coordinator stops.
///
/// # Errors
///
/// If the client is gone, or a log cannot be read.
pub(crate) async fn run(
    stream: &mut SendHalf,
    farm: &Arc<Farm>,
    (build, from): (BuildId, Vec<LogPosition>),
    follow: bool,
) -> Result<(), WatchError> {
    // Listened to before the first look, so that nothing falls between.
    let bell = farm.bells.listen(build);
    let mut watcher = Watcher {
        build,
        farm: Arc::clone(farm),
        sent: positions(build, &from),
        shown: BTreeMap::new(),
    };
    let Some(mut look) = watcher.first_look().await? else {
        return Ok(());
    };
    loop {
        watcher.send(stream, &look).await?;
        if let Some(summary) = look.ended {
            return Ok(stream
                .message(&WatchEvent::Ended(Box::new(summary)))
                .await?);
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = bell.rung() => {}
            () = stream.stopped() => return Ok(()),
        }
        match watcher.look(bell.take()).await? {
            Some(next) => look = next,
            // The build was deleted, or the coordinator stops: there is nothing more to come.
            None => return Ok(()),
        }
    }
}

fn positions(build: BuildId, from: &[LogPosition]) -> BTreeMap<LogKey, u64> {
    let position = |at: &LogPosition| {
        let key = LogKey {
            job: JobId {
                build,
                index: at.job,
            },
            attempt: at.attempt,
        };
        (key, at.offset)
    };
    from.iter().map(position).collect()
}

/// What one watcher has been sent.
struct Watcher {
    build: BuildId,
    farm: Arc<Farm>,
    /// How many bytes of each log.
    sent: BTreeMap<LogKey, u64>,
    /// How each phase stood when it was shown last.
    shown: BTreeMap<u32, PhaseDetail>,
}

/// What there is to send.
struct Look {
    /// Phases, by job.
    phases: Vec<(Option<String>, PhaseDetail)>,
    /// How long logs that have grown are now.
    logs: BTreeMap<LogKey, u64>,
    /// Restores that go on, by job.
    restores: BTreeMap<u32, RestoreProgress>,
    /// The build, if it has ended.
    ended: Option<BuildSummary>,
}

impl Watcher {
    /// Everything that there is; `None`: the build is gone.
    async fn first_look(&self) -> Result<Option<Look>, WatchError> {
        let build = self.build;
        let asked = self
            .farm
            .dispatcher
            .ask(move |state| scheduler::build_detail(state, build, clock::both()));
        let Ok(Some(detail)) = asked.await else {
            return Ok(None);
        };
        let units = detail.units.into_iter();
        let mut phases: Vec<_> = units
            .flat_map(|unit| {
                let identifier = unit.identifier;
                let phases = unit.phases.into_iter();
                phases.map(move |phase| (identifier.clone(), phase))
            })
            .collect();
        phases.sort_by_key(|(_, phase)| phase.job);
        Ok(Some(Look {
            phases,
            logs: self.lengths().await?,
            restores: BTreeMap::new(),
            ended: ended(detail.summary),
        }))
    }

    /// What is new; `None`: the build is gone, or the coordinator stops.
    async fn look(&self, news: News) -> Result<Option<Look>, WatchError> {
        let build = self.build;
        // A log can be heard of before the start of its phase is.
        let mut jobs = news.jobs;
        jobs.extend(news.logs.iter().map(|key| key.job.index));
        let asked = self.farm.dispatcher.ask(move |state| {
            let summary = scheduler::build_summary(state, build)?;
            let phases = jobs.into_iter().filter_map(|index| {
                scheduler::build_phase(state, JobId { build, index }, clock::both())
            });
            Some((phases.collect::<Vec<_>>(), summary))
        });
        let Ok(Some((phases, summary))) = asked.await else {
            return Ok(None);
        };
        let ended = ended(summary);
        // The logs of a phase that has ended are all there by now: read them to their ends.
        let settled = phases.iter().any(|(_, phase)| is_ended(phase)) || ended.is_some();
        let logs = if settled {
            self.lengths().await?
        } else {
            self.lengths_of(news.logs).await?
        };
        Ok(Some(Look {
            phases,
            logs,
            restores: news.restores,
            ended,
        }))
    }

    /// How long the logs of the build are.
    async fn lengths(&self) -> Result<BTreeMap<LogKey, u64>, WatchError> {
        let (logs, build) = (Arc::clone(&self.farm.logs), self.build);
        let lengths = spawn_blocking(move || logs.lengths(build)).await;
        let lengths = lengths.expect("looking at logs does not panic");
        lengths.map_err(|source| WatchError::Log { build, source })
    }

    /// How long these logs are.
    async fn lengths_of(
        &self,
        keys: BTreeSet<LogKey>,
    ) -> Result<BTreeMap<LogKey, u64>, WatchError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (logs, build) = (Arc::clone(&self.farm.logs), self.build);
        let lengths = move || {
            let length = |key| Ok((key, logs.length(key)?));
            keys.into_iter().map(length).collect()
        };
        let lengths = spawn_blocking(lengths).await;
        let lengths: io::Result<_> = lengths.expect("looking at logs does not panic");
        lengths.map_err(|source| WatchError::Log { build, source })
    }

    async fn send(&mut self, stream: &mut SendHalf, look: &Look) -> Result<(), WatchError> {
        for (&index, &progress) in &look.restores {
            let build = self.build;
            let job = JobId { build, index };
            stream
                .message(&WatchEvent::Restoring { job, progress })
                .await?;
        }
        for (unit, phase) in &look.phases {
            if self.shown.get(&phase.job) == Some(phase) {
                continue;
            }
            let before = self.shown.get(&phase.job);
            // Its log stands between its start and its end, also for who missed the start.
            if is_ended(phase)
                && 0 < phase.attempts
                && before.is_none_or(|shown| shown.attempts < phase.attempts)
            {
                show(stream, unit.as_ref(), running(phase)).await?;
            }
            if is_ended(phase) {
                self.logs_of(stream, phase.job, &look.logs).await?;
            }
            show(stream, unit.as_ref(), phase.clone()).await?;
            self.shown.insert(phase.job, phase.clone());
        }
        self.all_logs(stream, &look.logs).await
    }

    /// Sends what is new in the logs of a job, attempt by attempt.
    async fn logs_of(
        &mut self,
        stream: &mut SendHalf,
        job: u32,
        logs: &BTreeMap<LogKey, u64>,
    ) -> Result<(), WatchError> {
        for (&key, &length) in logs.iter().filter(|(key, _)| key.job.index == job) {
            while self.piece(stream, key, length).await? {}
        }
        Ok(())
    }

    /// Sends what is new in all logs; they take turns. Those of attempts whose start is not shown yet have
    /// time: their bell rings later.
    async fn all_logs(
        &mut self,
        stream: &mut SendHalf,
        logs: &BTreeMap<LogKey, u64>,
    ) -> Result<(), WatchError> {
        let is_shown = |key: &LogKey| {
            let shown = self.shown.get(&key.job.index);
            shown.is_some_and(|phase| key.attempt <= phase.attempts)
        };
        let mut left: Vec<_> = logs.iter().map(|(&key, &length)| (key, length)).collect();
        left.retain(|(key, _)| is_shown(key));
        while !left.is_empty() {
            let mut next = Vec::new();
            for (key, length) in left {
                if self.piece(stream, key, length).await? {
                    next.push((key, length));
                }
            }
            left = next;
        }
        Ok(())
    }

    /// Sends the next piece of a log up to `length`; whether there may be another.
    async fn piece(
        &mut self,
        stream: &mut SendHalf,
        key: LogKey,
        length: u64,
    ) -> Result<bool, WatchError> {
        let offset = self.sent.get(&key).copied().unwrap_or(0);
        if length <= offset {
            return Ok(false);
        }
        let logs = Arc::clone(&self.farm.logs);
        let read = spawn_blocking(move || logs.read(key, offset, PIECE_BYTES_MAX)).await;
        let build = self.build;
        let bytes = read
            .expect("reading logs does not panic")
            .map_err(|source| WatchError::Log { build, source })?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let count = u32::try_from(bytes.len()).expect("pieces are small");
        let event = WatchEvent::Log {
            job: key.job,
            attempt: key.attempt,
            offset,
            bytes: count,
        };
        stream.message(&event).await?;
        stream.bytes(Bytes::from(bytes)).await?;
        let sent = offset + u64::from(count);
        self.sent.insert(key, sent);
        Ok(sent < length)
    }
}

async fn show(
    stream: &mut SendHalf,
    unit: Option<&String>,
    detail: PhaseDetail,
) -> Result<(), StreamError> {
    let event = WatchEvent::Phase {
        unit: unit.cloned(),
        detail: Box::new(detail),
    };
    stream.message(&event).await
}

const fn is_ended(phase: &PhaseDetail) -> bool {
    matches!(phase.status, Status::Ended(_))
}

/// How a phase that has ended stood before.
fn running(phase: &PhaseDetail) -> PhaseDetail {
    PhaseDetail {
        status: Status::InProgress,
        ended: None,
        context: None,
        cache_uses: Vec::new(),
        ..phase.clone()
    }
}

fn ended(summary: BuildSummary) -> Option<BuildSummary> {
    matches!(summary.status, Status::Ended(_)).then_some(summary)
}
