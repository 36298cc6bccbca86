//! How hit rates are shown.

use serde_json::json;

use super::{json_line, out, table::Table};
use crate::{
    error::CommandError,
    history::{History, Supposed},
};

/// `grange bench hits`.
pub(crate) fn hits(history: &History, supposed: Supposed, json: bool) -> Result<(), CommandError> {
    let lookups = history.lookups();
    let all = lookups.saturating_mul(supposed.made_millis);
    let rates = history.rates(supposed);
    if json {
        json_line(&json!({
            "lookups": lookups,
            "keys": history.different(),
            "source_bytes": history.source_bytes,
            "source_bytes_there": history.source_there,
            "source_trees_there": history.trees_there,
        }))?;
        return rates.iter().try_for_each(|rates| {
            json_line(&json!({
                "entries": rates.entries,
                "saved_share": share(rates.chosen, all),
                "lru": share(rates.lru, all),
                "clairvoyant": share(rates.clairvoyant, all),
                "bound": share(rates.bound, all),
            }))
        });
    }
    let there = percent(history.source_there, history.source_bytes);
    out::print(&format!(
        "{lookups} lookups of {} keys; of the source trees, {} were there before, and {there} of all bytes\n\n",
        history.different(),
        history.trees_there,
    ))?;
    let mut table = Table::new(["ENTRIES", "BYTES", "SAVED", "LRU", "CLAIRVOYANT", "BOUND"]);
    for rates in rates {
        table.row([
            rates.entries.to_string(),
            super::bytes(rates.entries.saturating_mul(supposed.bytes)),
            percent(rates.chosen, all),
            percent(rates.lru, all),
            percent(rates.clairvoyant, all),
            percent(rates.bound, all),
        ]);
    }
    out::print(&table.text())
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * share(part, whole))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody reads the sixteenth digit of a share"
)]
fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    }
}
