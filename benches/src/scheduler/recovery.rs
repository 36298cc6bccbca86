//! How long a coordinator takes to read what it journalled.

use std::{collections::VecDeque, path::Path};

use ::scheduler::{Config, Event, Fact, Now, Scheduler};
use anyhow::{Result, ensure};
use coordinator::{Journal, Replayed, record};
use protocol::build::BuildId;

use super::{
    TEAMS, granted,
    sample::{joins, result, submission},
};
use crate::{clock::time, report::Row};

/// How many facts are read.
const FACTS: u32 = 1_000_000;
/// How many facts are synced together.
const GROUP: usize = 2_000;
/// How many builds that have ended are kept.
const KEPT: usize = 1_000;

/// Writes a journal without a state beside it, and reads it.
///
/// # Errors
///
/// If the disk refuses.
pub(super) fn measure() -> Result<Row> {
    let directory = tempfile::tempdir_in(".")?;
    let bytes = write(directory.path())?;
    let (took, read) = time(|| read(directory.path()));
    ensure!(read? == FACTS, "not all facts were read");
    Ok(Row {
        name: format!("recovery from {FACTS} facts"),
        value: took.as_secs_f64(),
        unit: "s",
        ceiling: None,
        ratio: None,
        note: format!(
            "{} MB; a coordinator puts its state beside 20,000 facts, and reads no more",
            bytes / 1_000_000
        ),
    })
}

/// Writes the facts of a farm that builds and forgets; gives their bytes.
fn write(directory: &Path) -> Result<usize> {
    let mut journal = Journal::open(directory, &mut |_| Ok(()))?;
    let mut scheduler = Scheduler::new(Config::default());
    let mut facts: Vec<Fact> = Vec::new();
    let (mut left, mut bytes) = (FACTS as usize, 0);
    for join in joins(1) {
        facts.extend(scheduler.apply(Now::default(), join).facts);
    }
    let mut kept = VecDeque::new();
    for number in 0_u32.. {
        let build = submission(number.into(), number % TEAMS, 1);
        let decision = scheduler.apply(Now::default(), Event::Submit(Box::new(build)));
        let leases = granted(&decision);
        facts.extend(decision.facts);
        for (session, lease) in leases {
            let result = Box::new(result());
            let finished = Event::Finished {
                session,
                lease,
                result,
            };
            facts.extend(scheduler.apply(Now::default(), finished).facts);
        }
        kept.push_back(BuildId(number.into()));
        if KEPT < kept.len()
            && let Some(build) = kept.pop_front()
        {
            let delete = Event::Delete { build };
            facts.extend(scheduler.apply(Now::default(), delete).facts);
        }
        if facts.len() < GROUP.min(left) {
            continue;
        }
        facts.truncate(left);
        let records: Vec<Vec<u8>> = facts.iter().map(record::encode).collect();
        bytes += records.iter().map(Vec::len).sum::<usize>();
        journal.append(&records)?;
        left -= records.len();
        facts.clear();
        if left == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// Does what a coordinator does at its start; gives how many facts there were.
fn read(directory: &Path) -> Result<u32> {
    let mut scheduler = Scheduler::new(Config::default());
    let mut facts = 0;
    Journal::open(directory, &mut |replayed| {
        if let Replayed::Record(line) = replayed {
            scheduler.replay(&record::decode(line)?)?;
            facts += 1;
        }
        Ok(())
    })?;
    scheduler.recovered(Now::default());
    Ok(facts)
}
