//! Writing facts down, whatever the disk says.

use std::time::Duration;

use protocol::report::Chain;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::DispatchError;
use crate::{
    health::Health,
    journal::{AppendError, Journal},
};

/// How long the disk gets before facts that it refused are written again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Appends records; as long as the disk refuses to take them, tries again, up to a stop. Is never given up
/// in the middle of a write: the next coordinator would find the file changing under it.
pub(super) async fn append(
    mut journal: Journal,
    mut records: Vec<Vec<u8>>,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Journal, DispatchError> {
    let count = records.len();
    if count == 0 {
        return Ok(journal);
    }
    loop {
        let task = spawn_blocking(move || {
            let appended = journal.append(&records);
            (journal, records, appended)
        });
        let appended;
        (journal, records, appended) = task.await.expect("appending does not panic");
        match appended {
            Ok(()) => {
                health.set(Ok(()));
                metrics::counter!("grange_facts_journalled_total").increment(count as u64);
                metrics::counter!("grange_journal_syncs_total").increment(1);
                return Ok(journal);
            }
            Err(source @ AppendError::NotWritten { .. }) => {
                error!(error = %Chain(&source), "journal refused; nothing is decided until it is written");
                metrics::counter!("grange_journal_refused_total").increment(1);
                health.set(Err(Chain(&source).to_string()));
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(DispatchError::Journal { source }),
                    () = sleep(REFUSED_PAUSE) => {}
                }
            }
            Err(source @ AppendError::Uncertain { .. }) => {
                return Err(DispatchError::Journal { source });
            }
        }
    }
}
