//! Whether the coordinator can do its work, for those who watch over it; and the numbers that it shows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Dispatcher;

/// How often numbers are brought up to date that are not counted as they change. Prometheus asks every 15
/// seconds or less often.
const GAUGES_PERIOD: Duration = Duration::from_secs(5);

/// Whether the coordinator is well. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    /// Says how it is: `Err` with the reason if it is not well.
    pub(crate) fn set(&self, health: Result<(), String>) {
        *self.lock() = health.err();
    }

    /// How it is.
    ///
    /// # Errors
    ///
    /// The reason, if it is not well.
    pub(crate) fn get(&self) -> Result<(), String> {
        self.lock().clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // It is replaced whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings gauges up to date until stopped.
pub(crate) async fn gauge(dispatcher: Dispatcher, stop: CancellationToken) {
    loop {
        let counts = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            counts = dispatcher.ask(scheduler::counts) => counts,
        };
        let Ok(counts) = counts else {
            return;
        };
        let gauges = [
            ("grange_builds_active", counts.builds_active),
            ("grange_builds_kept", counts.builds_ended),
            ("grange_jobs_queued", counts.jobs_queued),
            ("grange_attempts_running", counts.leases),
            ("grange_workers_connected", counts.workers),
        ];
        for (name, value) in gauges {
            // Exact up to 2^32, and more there are not.
            metrics::gauge!(name).set(f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(GAUGES_PERIOD) => {}
        }
    }
}
