//! A build as it goes by: its log on standard output, phases with their times on standard error.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
};

use anstream::{eprintln, println};
use protocol::{
    build::Status,
    message::client::{BuildSummary, PhaseDetail, WatchEvent},
};
use serde_json::json;

use super::{status_style, text::span};

/// Prints the events of one build.
#[derive(Debug)]
pub(crate) struct Transcript {
    json: bool,
    /// Of each job: its unit's identifier, if the build is a batch.
    units: BTreeMap<u32, Option<String>>,
    /// Of each attempt of a batch: the line that has not ended yet.
    unended: BTreeMap<(u32, u32), Vec<u8>>,
    /// The last status that was printed of each job.
    statuses: BTreeMap<u32, Status>,
}

/// How long a line of a batch's log may be before it is printed without its end, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

impl Transcript {
    /// A transcript that has printed nothing yet.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            units: BTreeMap::new(),
            unended: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// Prints an event; `bytes` are those of a piece of log, else empty.
    pub(crate) fn event(&mut self, event: &WatchEvent, bytes: &[u8]) {
        if self.json {
            print_json(event, bytes);
            return;
        }
        match event {
            WatchEvent::Phase { unit, detail } => self.phase(unit.as_ref(), detail),
            WatchEvent::Log { job, attempt, .. } => self.log((job.index, *attempt), bytes),
            WatchEvent::Ended(summary) => {
                self.flush();
                ended(summary);
            }
        }
    }

    fn phase(&mut self, unit: Option<&String>, detail: &PhaseDetail) {
        self.units.insert(detail.job, unit.cloned());
        if self.statuses.insert(detail.job, detail.status) == Some(detail.status) {
            return;
        }
        let Status::Ended(_) = detail.status else {
            return;
        };
        let (Some(started), Some(ended)) = (detail.started, detail.ended) else {
            return;
        };
        let unit = unit.map_or(String::new(), |unit| format!("{unit} "));
        let style = status_style(detail.status);
        eprintln!(
            "{style}{unit}{} {}{style:#} in {}",
            detail.phase,
            detail.status.as_str(),
            span(ended.since(started)),
        );
    }

    /// Prints a piece of log: as it is, or, of a batch, line by line with the unit in front.
    fn log(&mut self, attempt: (u32, u32), bytes: &[u8]) {
        let Some(Some(unit)) = self.units.get(&attempt.0) else {
            print_bytes(bytes);
            return;
        };
        let line = self.unended.entry(attempt).or_default();
        line.extend_from_slice(bytes);
        let end = match line.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => at + 1,
            None if LINE_BYTES_MAX < line.len() => line.len(),
            None => return,
        };
        let lines: Vec<u8> = line.drain(..end).collect();
        print_lines(unit, &lines);
    }

    /// Prints the lines that nothing ended.
    fn flush(&mut self) {
        for ((job, _), line) in std::mem::take(&mut self.unended) {
            if let Some(Some(unit)) = self.units.get(&job)
                && !line.is_empty()
            {
                print_lines(unit, &line);
            }
        }
    }
}

fn print_lines(unit: &str, lines: &[u8]) {
    let mut text = Vec::with_capacity(lines.len() + lines.len() / 4);
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        text.extend_from_slice(format!("[{unit}] ").as_bytes());
        text.extend_from_slice(line);
    }
    print_bytes(&text);
}

/// Prints log bytes as they are. Who closed the pipe wants no more: that is no failure.
fn print_bytes(bytes: &[u8]) {
    let mut out = stdout().lock();
    let _closed = out.write_all(bytes).and_then(|()| out.flush());
}

fn print_json(event: &WatchEvent, bytes: &[u8]) {
    let value = match event {
        WatchEvent::Phase { unit, detail } => {
            json!({"event": "phase", "unit": unit, "detail": detail})
        }
        WatchEvent::Log {
            job,
            attempt,
            offset,
            ..
        } => json!({
            "event": "log", "job": job.index, "attempt": attempt, "offset": offset,
            "text": String::from_utf8_lossy(bytes),
        }),
        WatchEvent::Ended(summary) => json!({"event": "ended", "build": summary}),
    };
    println!("{value}");
}

fn ended(summary: &BuildSummary) {
    let style = status_style(summary.status);
    let took = summary.started.zip(summary.ended);
    let took = took.map(|(from, to)| format!(" in {}", span(to.since(from))));
    eprintln!(
        "{style}build {}#{} {}{style:#}{}",
        summary.project,
        summary.number,
        summary.status.as_str(),
        took.unwrap_or_default(),
    );
}
