//! One file per format: from its elements to the model.

mod clover;
mod cobertura;
mod cucumber;
mod jacoco;
mod junit;
mod nunit;
mod simplecov;
mod testng;
mod trx;

pub(crate) use clover::clover;
pub(crate) use cobertura::cobertura;
pub(crate) use cucumber::cucumber;
pub(crate) use jacoco::jacoco;
pub(crate) use junit::junit;
pub(crate) use nunit::{nunit2, nunit3};
pub(crate) use simplecov::simplecov;
pub(crate) use testng::testng;
pub(crate) use trx::trx;

use std::time::Duration;

use crate::cases::Case;
use crate::place;

/// Nanoseconds of a time in seconds; 0, if it is none. Some tools group digits by commas.
fn nanoseconds(seconds: &str) -> u64 {
    let plain: String = seconds.trim().chars().filter(|c| *c != ',').collect();
    let seconds = plain.parse::<f64>().ok();
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// What a failure says in its attribute and in its text, once.
fn joined(message: &str, text: &str) -> String {
    let (message, text) = (message.trim(), text.trim());
    if text.contains(message) {
        text.to_owned()
    } else if text.is_empty() {
        message.to_owned()
    } else {
        format!("{message}\n{text}")
    }
}

/// Says where a failing case failed, if its trace tells, rather than where it is written.
fn locate(case: &mut Case, trace: &str) {
    if case.status.is_failing()
        && let Some(place) = place::in_trace(trace)
    {
        case.place = Some(place);
    }
}
