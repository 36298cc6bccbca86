//! What a benchmark says: rows with a name, a value, a unit, and how they stand to their ceiling.

#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]

use anyhow::{Result, ensure};
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// The median.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// What it is to stay below (or reach: rates, and what is the least or smallest of several); `None`: told for
    /// scale.
    pub(crate) ceiling: Option<f64>,
    /// The value as a multiple of its floor, the median of the pairs; `None`: it has none.
    pub(crate) ratio: Option<f64>,
    /// What the value is a multiple of, how far the floor's measurements are apart, and the like.
    pub(crate) note: String,
}

/// Says something to the process that started this one.
///
/// # Errors
///
/// If it is no JSON.
pub(crate) fn say<T: Serialize>(what: &T) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

/// Fails if a row does not keep its ceiling, or as a rate does not reach it.
///
/// # Errors
///
/// Which.
pub(crate) fn enforce(rows: &[Row]) -> Result<()> {
    for row in rows {
        let is_rate = row.unit.ends_with("/s");
        let is_kept = row.ceiling.is_none_or(|ceiling| match is_rate {
            true => ceiling <= row.value,
            false => row.value <= ceiling,
        });
        ensure!(
            is_kept,
            "{}: {:.2} {}, and {:?} is the limit",
            row.name,
            row.value,
            row.unit,
            row.ceiling
        );
    }
    Ok(())
}

/// Prints what is made up already.
pub(crate) fn print_text(text: &str) {
    print!("{text}");
}

/// Prints rows.
///
/// # Errors
///
/// If a row is no JSON.
pub(crate) fn print(rows: &[Row], json: bool) -> Result<()> {
    if !json {
        println!(
            "{:<44} {:>10} {:<6} {:>8} {:>7}",
            "", "value", "unit", "ceiling", "ratio"
        );
    }
    for row in rows {
        if json {
            println!("{}", serde_json::to_string(row)?);
            continue;
        }
        let optional =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        println!(
            "{:<44} {:>10.2} {:<6} {:>8} {:>7}  {}",
            row.name,
            row.value,
            row.unit,
            optional(row.ceiling),
            optional(row.ratio),
            row.note,
        );
    }
    Ok(())
}
