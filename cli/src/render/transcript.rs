//! A build as it goes by: its log on standard output, phases with their times on standard error.

use std::collections::BTreeMap;

use protocol::{
    build::{Phase, Status},
    message::{
        client::{BuildSummary, PhaseDetail, WatchEvent},
        work::RestoreProgress,
    },
};
use serde_json::json;

use super::{out::Piece, status_style, text::span};

/// Makes of the events of one build what is to be printed.
#[derive(Debug)]
pub(crate) struct Transcript {
    json: bool,
    /// Of each job: its unit's identifier, if the build is a batch.
    units: BTreeMap<u32, Option<String>>,
    /// Of each attempt of a batch: the line that has not ended yet.
    unended: BTreeMap<(u32, u32), Vec<u8>>,
    /// The last status that was printed of each job.
    statuses: BTreeMap<u32, Status>,
    /// What was told last of each job.
    details: BTreeMap<u32, PhaseDetail>,
    /// The phase of each job.
    phases: BTreeMap<u32, Phase>,
    /// Of each job, how many of its first attempts were no tries at what came after.
    fetches: BTreeMap<u32, u32>,
    /// Of each job, the attempt whose output was printed last.
    attempts: BTreeMap<u32, u32>,
    /// Of each job that restores what it starts from, how far that is.
    restores: BTreeMap<u32, RestoreProgress>,
}

/// Why a phase ended as it did, where its log cannot say so: the buildspec was read when its log was
/// written already.
fn unlogged(detail: &PhaseDetail) -> String {
    let context = detail.context.as_ref();
    let context = context.filter(|context| context.status_code == "YAML_FILE_ERROR");
    context.map_or(String::new(), |context| {
        format!("\n{}: {}", context.status_code, context.message)
    })
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
            details: BTreeMap::new(),
            phases: BTreeMap::new(),
            fetches: BTreeMap::new(),
            attempts: BTreeMap::new(),
            restores: BTreeMap::new(),
        }
    }

    /// What an event is to people or, as JSON, to programs; `bytes` are those of a piece of log, else
    /// empty.
    pub(crate) fn event(&mut self, event: &WatchEvent, bytes: &[u8]) -> Vec<Piece> {
        if self.is_known(event) {
            return Vec::new();
        }
        if self.json {
            return vec![json_piece(event, bytes)];
        }
        match event {
            WatchEvent::Phase { unit, detail } => {
                let bar = match detail.status {
                    Status::Ended(_) => self.restored(detail.job),
                    _ => None,
                };
                let line = self.phase(unit.as_ref(), detail);
                bar.into_iter().chain(line).collect()
            }
            WatchEvent::Restoring { job, progress } => self.restoring(job.index, *progress),
            WatchEvent::Log { job, attempt, .. } => {
                let lost = self.lost(job.index, *attempt);
                let piece = self.log((job.index, *attempt), bytes);
                lost.into_iter().chain(piece).collect()
            }
            WatchEvent::Ended(summary) => {
                let mut pieces = self.flush();
                pieces.push(ended(summary));
                pieces
            }
        }
    }

    /// Whether an event was printed before: over each new connection all phases are told as they stand.
    fn is_known(&mut self, event: &WatchEvent) -> bool {
        let WatchEvent::Phase { detail, .. } = event else {
            return false;
        };
        let before = self.details.insert(detail.job, (**detail).clone());
        before.as_ref() == Some(&**detail)
    }

    fn restoring(&mut self, job: u32, progress: RestoreProgress) -> Vec<Piece> {
        if progress.bytes_total <= progress.bytes_done {
            return self.restored(job).into_iter().collect();
        }
        self.restores.insert(job, progress);
        vec![Piece::Restoring(self.sum())]
    }

    /// The bar without a job; `None`: the job was not in it.
    fn restored(&mut self, job: u32) -> Option<Piece> {
        self.restores.remove(&job)?;
        Some(Piece::Restoring(self.sum()))
    }

    /// How far all restores are together; `None`: there are none.
    fn sum(&self) -> Option<RestoreProgress> {
        self.restores
            .values()
            .copied()
            .reduce(|a, b| RestoreProgress {
                bytes_done: a.bytes_done.saturating_add(b.bytes_done),
                bytes_total: a.bytes_total.saturating_add(b.bytes_total),
            })
    }

    fn phase(&mut self, unit: Option<&String>, detail: &PhaseDetail) -> Option<Piece> {
        self.units.insert(detail.job, unit.cloned());
        self.phases.insert(detail.job, detail.phase);
        self.fetches.insert(detail.job, detail.fetches);
        if self.statuses.insert(detail.job, detail.status) == Some(detail.status) {
            return None;
        }
        let Status::Ended(_) = detail.status else {
            return None;
        };
        let (started, ended) = detail.started.zip(detail.ended)?;
        let unit = unit.map_or(String::new(), |unit| format!("{unit} "));
        let style = status_style(detail.status);
        Some(Piece::Talk(format!(
            "{style}{unit}{} {}{style:#} in {}{}",
            detail.phase,
            detail.status.as_str(),
            span(ended.since(started)),
            unlogged(detail),
        )))
    }

    /// Marks what an earlier attempt at a job printed, when a later one prints: it was lost, and what it
    /// printed does not count.
    fn lost(&mut self, job: u32, attempt: u32) -> Option<Piece> {
        let before = self.attempts.insert(job, attempt)?;
        let fetches = self.fetches.get(&job).copied().unwrap_or(0);
        if attempt <= before || before == fetches {
            return None;
        }
        let phase = self
            .phases
            .get(&job)
            .map_or("a phase", |phase| phase.as_str());
        let unfinished = self.unended.remove(&(job, before)).unwrap_or_default();
        let line = format!(
            "[grange] attempt {before} of {phase} was lost, and what it printed does not count; \
             attempt {attempt} begins\n"
        );
        let mut text = unfinished;
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        Some(match self.units.get(&job) {
            Some(Some(unit)) => of_unit(unit, &text),
            _ => Piece::Bytes(text),
        })
    }

    /// A piece of log: as it is, or, of a batch, line by line with the unit in front.
    fn log(&mut self, attempt: (u32, u32), bytes: &[u8]) -> Option<Piece> {
        let Some(Some(unit)) = self.units.get(&attempt.0) else {
            return Some(Piece::Bytes(bytes.to_vec()));
        };
        let line = self.unended.entry(attempt).or_default();
        line.extend_from_slice(bytes);
        let end = match line.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => at + 1,
            None if LINE_BYTES_MAX < line.len() => line.len(),
            None => return None,
        };
        let lines: Vec<u8> = line.drain(..end).collect();
        Some(of_unit(unit, &lines))
    }

    /// The lines that nothing ended.
    fn flush(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for ((job, _), line) in std::mem::take(&mut self.unended) {
            if let Some(Some(unit)) = self.units.get(&job)
                && !line.is_empty()
            {
                pieces.push(of_unit(unit, &line));
            }
        }
        pieces
    }
}

fn of_unit(unit: &str, lines: &[u8]) -> Piece {
    let mut text = Vec::with_capacity(lines.len() + lines.len() / 4);
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        text.extend_from_slice(format!("[{unit}] ").as_bytes());
        text.extend_from_slice(line);
    }
    Piece::Bytes(text)
}

fn json_piece(event: &WatchEvent, bytes: &[u8]) -> Piece {
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
        WatchEvent::Restoring { job, progress } => {
            json!({"event": "restoring", "job": job.index, "progress": progress})
        }
        WatchEvent::Ended(summary) => json!({"event": "ended", "build": summary}),
    };
    Piece::Bytes(format!("{value}\n").into_bytes())
}

fn ended(summary: &BuildSummary) -> Piece {
    let style = status_style(summary.status);
    let took = summary.started.zip(summary.ended);
    let took = took.map(|(from, to)| format!(" in {}", span(to.since(from))));
    Piece::Talk(format!(
        "{style}build {}#{} {}{style:#}{}",
        summary.project,
        summary.number,
        summary.status.as_str(),
        took.unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use protocol::{build::BuildId, job::JobId};

    use super::*;

    fn restoring(index: u32, bytes_done: u64, bytes_total: u64) -> WatchEvent {
        WatchEvent::Restoring {
            job: JobId {
                build: BuildId(1),
                index,
            },
            progress: RestoreProgress {
                bytes_done,
                bytes_total,
            },
        }
    }

    fn bar(sum: Option<(u64, u64)>) -> Vec<Piece> {
        let sum = sum.map(|(bytes_done, bytes_total)| RestoreProgress {
            bytes_done,
            bytes_total,
        });
        vec![Piece::Restoring(sum)]
    }

    #[test]
    fn a_phase_that_is_told_again_over_a_new_connection_is_printed_once_for_programs_too() {
        let detail = |status| PhaseDetail {
            job: 3,
            phase: Phase::Build,
            status,
            waits: None,
            attempts: 1,
            worker: None,
            started: None,
            ended: None,
            context: None,
            cache_uses: Vec::new(),
            fetches: 0,
        };
        let event = |status| WatchEvent::Phase {
            unit: None,
            detail: Box::new(detail(status)),
        };
        let mut transcript = Transcript::new(true);
        let told = [
            Status::InProgress,
            Status::InProgress,
            Status::Queued,
            Status::Queued,
        ];
        let printed = told.map(|status| transcript.event(&event(status), &[]).len());
        assert_eq!(printed, [1, 0, 1, 0]);
    }

    #[test]
    fn restores_that_go_on_together_are_one_bar_which_goes_with_the_last() {
        let mut transcript = Transcript::new(false);
        let mut after = |event| transcript.event(&event, &[]);
        assert_eq!(after(restoring(0, 1, 10)), bar(Some((1, 10))));
        assert_eq!(after(restoring(3, 5, 20)), bar(Some((6, 30))));
        assert_eq!(after(restoring(0, 10, 10)), bar(Some((5, 20))));
        assert_eq!(after(restoring(0, 10, 10)), []);
        assert_eq!(after(restoring(3, 20, 20)), bar(None));
    }
}
