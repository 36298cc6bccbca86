//! Progress of what takes more than a moment, on a terminal only.

use std::{
    future::Future,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use cache::progress::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::message::work::RestoreProgress;
use tokio::time::{MissedTickBehavior, interval};

use super::meter::{Meter, Shown};

/// How often a bar is drawn again: often enough to look alive, seldom enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(100);

/// What the bar of a transfer looks like; a [`Meter`] says the rest.
const TRANSFER: &str = "{msg} {bar:20} {prefix}";
/// What the bar of restores looks like, of which is known only how far they are.
const RESTORES: &str = "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Shows how far `work` is, by bytes, while it runs.
pub(crate) async fn show<T>(
    what: &'static str,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    let Ok(style) = ProgressStyle::with_template(TRANSFER) else {
        return work.await;
    };
    let bar = bar(style, what);
    let mut meter = Meter::new(what);
    let mut due = interval(REDRAW);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begun = None;
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            at = due.tick() => {
                let since = at.duration_since(*begun.get_or_insert(at));
                draw(&bar, meter.shown(since, &progress.now()));
            }
        }
    }
}

fn draw(bar: &ProgressBar, shown: Shown) {
    match shown.total {
        Some(total) => bar.set_length(total),
        None => bar.unset_length(),
    }
    bar.set_position(shown.done);
    bar.set_message(shown.name);
    bar.set_prefix(shown.text);
}

/// Shows that `work` goes on while it runs.
pub(crate) async fn spin<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let bar = bar(ProgressStyle::default_spinner(), what);
    bar.enable_steady_tick(REDRAW);
    let done = work.await;
    bar.finish_and_clear();
    done
}

/// A bar below a log that goes on.
#[derive(Debug, Default)]
pub(crate) struct RestoreBar(Option<ProgressBar>);

impl RestoreBar {
    /// Draws how far restores are; `None`: there are none.
    pub(crate) fn draw(&mut self, progress: Option<RestoreProgress>) {
        let Some(progress) = progress else {
            if let Some(bar) = self.0.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let Ok(style) = ProgressStyle::with_template(RESTORES) else {
            return;
        };
        let bar = self.0.get_or_insert_with(|| bar(style, "restoring"));
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
    }

    /// Writes what the bar must not stand in the middle of.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

fn bar(style: ProgressStyle, what: &'static str) -> ProgressBar {
    let bar = if stderr().is_terminal() {
        ProgressBar::no_length()
    } else {
        ProgressBar::hidden()
    };
    bar.with_style(style).with_message(what)
}
