//! Ctrl-C and SIGTERM: counted by a task of their own, so that nothing that a command waits for, or writes
//! to, can swallow them.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::error::{CommandError, exit};

/// How long a command that is left gets to end what it runs in this process. After that the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// How often somebody has asked this process to end.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    asked: watch::Sender<u32>,
    /// From which time on asking means leaving at once: the first, unless a command does better.
    leave_at: Arc<AtomicU32>,
}

impl Signals {
    /// Nobody has asked.
    pub(crate) fn new() -> Self {
        Self {
            asked: watch::Sender::new(0),
            leave_at: Arc::new(AtomicU32::new(1)),
        }
    }

    /// Counts for ever, and ends the process where the command does not.
    ///
    /// # Errors
    ///
    /// If signals cannot be watched.
    pub(crate) async fn listen(self) -> Result<(), CommandError> {
        let terminate = signal(SignalKind::terminate()).map_err(CommandError::farm)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(CommandError::farm)?;
        let mut signals = (terminate, interrupt);
        loop {
            next(&mut signals).await;
            self.asked.send_modify(|asked| *asked += 1);
            if self.is_left() {
                // The command ends by itself, unless it hangs on something.
                tokio::select! {
                    () = next(&mut signals) => {}
                    () = sleep(GRACE) => {}
                }
                leave();
            }
        }
    }

    /// From now on the next time means that what runs is to stop, and only the one after it that the
    /// command leaves at once.
    pub(crate) fn stop_first(&self) -> StopWanted {
        let so_far = *self.asked.borrow();
        self.leave_at.store(so_far + 2, Ordering::Relaxed);
        StopWanted {
            signals: self.clone(),
            at: so_far + 1,
        }
    }

    /// Waits until somebody wants to leave at once.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn left(&self) {
        let mut asked = self.asked.subscribe();
        while !self.is_left() {
            if asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_left(&self) -> bool {
        self.leave_at.load(Ordering::Relaxed) <= *self.asked.borrow()
    }
}

/// Somebody's wish that what runs stops: once there, it stays.
#[derive(Debug)]
pub(crate) struct StopWanted {
    signals: Signals,
    at: u32,
}

impl StopWanted {
    /// Waits for it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn wait(&self) {
        let mut asked = self.signals.asked.subscribe();
        // The sender lives as long as `self`.
        let _asked = asked.wait_for(|asked| self.at <= *asked).await;
    }
}

impl Drop for StopWanted {
    /// What was to be stopped is over: the next time means leaving again.
    fn drop(&mut self) {
        let so_far = *self.signals.asked.borrow();
        let leave_at = &self.signals.leave_at;
        leave_at.fetch_min(so_far + 1, Ordering::Relaxed);
    }
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[expect(clippy::exit, reason = "whoever left does not wait for what hangs")]
fn leave() -> ! {
    process::exit(exit::STOPPED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(signals: &Signals) {
        signals.asked.send_modify(|asked| *asked += 1);
    }

    #[tokio::test]
    async fn the_first_time_means_leaving_unless_something_is_to_be_stopped_first() {
        let signals = Signals::new();
        let stop = signals.stop_first();
        ask(&signals);
        stop.wait().await;
        // Still there for who asks again, and no reason to leave.
        stop.wait().await;
        assert!(!signals.is_left());
        ask(&signals);
        signals.left().await;
    }

    #[tokio::test]
    async fn after_what_could_be_stopped_the_next_time_means_leaving() {
        let signals = Signals::new();
        drop(signals.stop_first());
        ask(&signals);
        signals.left().await;
        let other = Signals::new();
        let stop = other.stop_first();
        ask(&other);
        drop(stop);
        assert!(!other.is_left(), "it was a wish to stop");
        ask(&other);
        other.left().await;
    }
}
