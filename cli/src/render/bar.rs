//! Progress of what takes more than a moment, on a terminal only.

use std::{
    future::Future,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use cache::progress::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

/// How often a bar is drawn again: often enough to look alive, seldom enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(100);

/// Shows how far `work` is, by bytes, while it runs.
pub(crate) async fn show<T>(
    what: &'static str,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    let Ok(style) = style else {
        return work.await;
    };
    let bar = bar(style, what);
    let mut due = interval(REDRAW);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = due.tick() => {
                let now = progress.now();
                bar.set_length(now.bytes_total);
                bar.set_position(now.bytes_done);
            }
        }
    }
}

/// Shows that `work` goes on while it runs.
pub(crate) async fn spin<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let bar = bar(ProgressStyle::default_spinner(), what);
    bar.enable_steady_tick(REDRAW);
    let done = work.await;
    bar.finish_and_clear();
    done
}

fn bar(style: ProgressStyle, what: &'static str) -> ProgressBar {
    let bar = if stderr().is_terminal() {
        ProgressBar::no_length()
    } else {
        ProgressBar::hidden()
    };
    bar.with_style(style).with_message(what)
}
