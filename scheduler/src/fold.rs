//! Folding: how facts add up to the ledger.
//!
//! Nothing is decided here. A fact that does not fit what is known is refused: live, that is a broken
//! invariant; when a journal is read, the journal is not what was written.

mod error;

use protocol::{
    build::{BuildId, Outcome},
    job::JobId,
    lease::LeaseId,
    time::WallTime,
};

pub use self::error::FoldError;
use crate::{
    fact::{Fact, RestartCause, ReturnCause, StopCause},
    fetched,
    index::{Readiness, readiness},
    project,
    state::{self, Build, Ending, JobState, Lease, Ledger, Placement, Shared, Try},
};

/// Adds `fact` to `ledger`, which is unchanged if it does not fit.
pub(crate) fn fold(ledger: &mut Ledger, fact: &Fact) -> Result<(), FoldError> {
    match fact {
        Fact::BuildSubmitted {
            submission,
            number,
            order,
            limits,
            at,
        } => submitted(
            ledger,
            Build::new(submission.clone(), *number, *order, *limits, *at),
        ),
        Fact::LeaseGranted { .. }
        | Fact::AttemptBegan { .. }
        | Fact::LeaseLost { .. }
        | Fact::LeaseReturned { .. }
        | Fact::AttemptFaulted { .. } => fold_lease(ledger, fact),
        Fact::JobEnded {
            lease,
            job,
            outcome,
            result,
            at,
            ..
        } => {
            release(ledger, *lease, *job)?;
            end(ledger, *job, (*outcome, *at), |ended| {
                ended.context = Some(result.context.clone());
                ended.result = Some(result.clone());
            })
        }
        Fact::JobSkipped { job, at, .. } => end(ledger, *job, (Outcome::Skipped, *at), |_| {}),
        Fact::JobGivenUp {
            job,
            outcome,
            context,
            at,
        } => end(ledger, *job, (*outcome, *at), |ended| {
            ended.context = Some(context.clone());
        }),
        Fact::UnitRestarted {
            build, unit, cause, ..
        } => restarted(ledger, *build, *unit, *cause),
        Fact::StopRequested { build, cause, .. } => stopping(ledger, *build, *cause),
        Fact::BuildEnded { build, outcome, at } => ended(ledger, *build, *outcome, *at),
        Fact::BuildDeleted { build, .. } => deleted(ledger, *build),
        Fact::WorkerDraining {
            worker,
            incarnation,
            at,
        } => {
            ledger.draining.insert(worker.clone(), *at);
            let known = incarnation.map(|known| (worker.clone(), known));
            ledger.draining_processes.extend(known);
            Ok(())
        }
        Fact::WorkerDrained { worker, .. } => {
            ledger.draining.remove(worker);
            ledger.draining_processes.remove(worker);
            Ok(())
        }
        Fact::SourcesFetched { .. } => fetched::fold(ledger, fact),
        Fact::ProjectSaved { .. }
        | Fact::ProjectDeleted { .. }
        | Fact::CachesInvalidated { .. } => project::fold(ledger, fact),
    }
}

/// Adds a fact about a lease that decides no job; others change nothing.
fn fold_lease(ledger: &mut Ledger, fact: &Fact) -> Result<(), FoldError> {
    match fact {
        Fact::LeaseGranted {
            lease,
            job,
            attempt,
            worker,
            platform,
            incarnation,
            binds,
            at,
        } => {
            let placement = Placement {
                worker: worker.clone(),
                platform: platform.clone(),
                binds: *binds,
            };
            let granted = Lease {
                job: *job,
                attempt: *attempt,
                worker: worker.clone(),
                incarnation: *incarnation,
            };
            grant(ledger, (*lease, granted), placement, *at)
        }
        Fact::AttemptBegan { lease, job, .. } => began(ledger, *lease, *job),
        Fact::LeaseLost {
            lease,
            job,
            context,
            breaks,
            ..
        }
        | Fact::AttemptFaulted {
            lease,
            job,
            context,
            breaks,
            ..
        } => wait_again(ledger, (*lease, *job), *breaks, |lost| {
            lost.faults = lost.faults.saturating_add(1);
            lost.returns = 0;
            lost.context = Some(context.clone());
        }),
        Fact::LeaseReturned {
            lease,
            job,
            breaks,
            unstarts,
            cause,
            ..
        } => {
            wait_again(ledger, (*lease, *job), Some(*breaks), |returned| {
                returned.returns = returned.returns.saturating_add(1);
                let is_unbegun = *cause == ReturnCause::NotBegun;
                returned.not_begun = returned.not_begun.saturating_add(is_unbegun.into());
            })?;
            match unstarts {
                true => change(ledger, job.build, |build| build.started = None),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// The least id that a job of `build` can have.
pub(crate) const fn first_job(build: BuildId) -> JobId {
    JobId { build, index: 0 }
}

/// The greatest id that a job of `build` can have.
pub(crate) const fn last_job(build: BuildId) -> JobId {
    JobId {
        build,
        index: u32::MAX,
    }
}

fn submitted(ledger: &mut Ledger, build: Build) -> Result<(), FoldError> {
    let id = build.submission.build;
    if !state::is_sound(&build.submission.graph) {
        return Err(FoldError::Graph { build: id });
    }
    if ledger.builds.contains_key(&id) {
        return Err(FoldError::KnownBuild { build: id });
    }
    insert(ledger, build);
    Ok(())
}

/// Puts in a build of which nothing runs, and whose graph is sound.
pub(crate) fn insert(ledger: &mut Ledger, build: Build) {
    let id = build.submission.build;
    let projects = ledger.numbers.entry(build.submission.team.clone());
    let projects = projects.or_default();
    let last = projects
        .entry(build.submission.project.clone())
        .or_default();
    *last = build.number.max(*last);
    ledger.next_order = ledger.next_order.max(build.order.saturating_add(1));
    let index = &mut ledger.index;
    index.add(id, &build);
    index.weights.submit(&build);
    index.add_dependents(id, &build);
    index.limits.extend(build.limit().map(|limit| (limit, id)));
    let jobs = build.submission.graph.jobs.len();
    ledger.builds.insert(id, Shared::new(build));
    for (index, _) in (0..).zip(0..jobs) {
        refresh(ledger, JobId { build: id, index });
    }
}

fn grant(
    ledger: &mut Ledger,
    (lease, granted): (LeaseId, Lease),
    placement: Placement,
    at: WallTime,
) -> Result<(), FoldError> {
    let (job, worker) = (granted.job, granted.worker.clone());
    let known = known_job(ledger, job)?;
    if known.jobs[job.index as usize].state != JobState::Ready {
        return Err(FoldError::Standing { job });
    }
    ledger.index.queue.remove(job);
    ledger.index.again.remove(&job);
    change(ledger, job.build, |build| {
        build.started.get_or_insert(at);
        let unit = build.node(job.index).unit as usize;
        build.units[unit].placement = Some(placement);
        let known = &mut build.jobs[job.index as usize];
        known.state = JobState::Running(lease);
        known.tries.push(Try {
            lease,
            worker: worker.clone(),
            started: at,
        });
    })?;
    let build = &ledger.builds[&job.build];
    let unit = build.node(job.index).unit;
    ledger.index.bind(job.build, unit, build);
    ledger.index.add_lease(worker, lease);
    ledger.next_lease = lease.0.saturating_add(1);
    ledger.leases.insert(lease, granted);
    Ok(())
}

fn began(ledger: &mut Ledger, lease: LeaseId, job: JobId) -> Result<(), FoldError> {
    known_job(ledger, job)?;
    let build = known_build_mut(ledger, job.build)?;
    let begun = &mut build.jobs[job.index as usize];
    if begun.state != JobState::Running(lease) {
        return Err(FoldError::Standing { job });
    }
    begun.has_begun = true;
    Ok(())
}

/// An attempt is over and decides nothing: its job waits again, unless its build stops.
fn wait_again(
    ledger: &mut Ledger,
    (lease, job): (LeaseId, JobId),
    breaks: Option<bool>,
    note: impl FnOnce(&mut state::Job),
) -> Result<(), FoldError> {
    release(ledger, lease, job)?;
    let build = known_build_mut(ledger, job.build)?;
    let unit = build.node(job.index).unit as usize;
    let again = &mut build.jobs[job.index as usize];
    again.state = JobState::Waiting;
    note(again);
    let placement = build.units[unit].placement.as_ref();
    let is_bound = placement.is_some_and(Placement::is_bound);
    build.units[unit].is_broken |= breaks.unwrap_or(is_bound);
    refresh(ledger, job);
    Ok(())
}

/// A lease is not out any more.
pub(crate) fn release(ledger: &mut Ledger, lease: LeaseId, job: JobId) -> Result<(), FoldError> {
    let known = known_job(ledger, job)?;
    if known.jobs[job.index as usize].state != JobState::Running(lease) {
        return Err(FoldError::Standing { job });
    }
    let released = ledger.leases.remove(&lease);
    let worker = released.ok_or(FoldError::UnknownLease { lease })?.worker;
    ledger.index.remove_lease(&worker, lease);
    Ok(())
}

fn end(
    ledger: &mut Ledger,
    job: JobId,
    (outcome, at): (Outcome, WallTime),
    fill: impl FnOnce(&mut state::Job),
) -> Result<(), FoldError> {
    let known = known_job(ledger, job)?;
    if known.jobs[job.index as usize].outcome().is_some() {
        return Err(FoldError::Standing { job });
    }
    ledger.index.queue.remove(job);
    ledger.index.again.remove(&job);
    ledger.index.doomed.remove(&job);
    let build = known_build_mut(ledger, job.build)?;
    let unit = build.node(job.index).unit;
    let ended = &mut build.jobs[job.index as usize];
    ended.state = JobState::Ended(outcome);
    ended.ended = Some(at);
    fill(ended);
    build.open -= 1;
    let of = &mut build.units[unit as usize];
    of.open -= 1;
    if of.open == 0 {
        let placement = of.placement.as_ref();
        let worker = placement.map(|placement| placement.worker.clone());
        if let Some(worker) = worker {
            ledger.index.unbind(job.build, unit, &worker);
        }
        let build = &ledger.builds[&job.build];
        ledger.index.add_ended_unit(job.build, unit, build);
    }
    let dependents = ledger.index.dependents.get(&job.build);
    let dependents = dependents.map(|of| of[job.index as usize].clone());
    for index in dependents.unwrap_or_default() {
        let build = job.build;
        refresh(ledger, JobId { build, index });
    }
    Ok(())
}

/// Puts a job that waits for what it needs where it belongs by now.
fn refresh(ledger: &mut Ledger, job: JobId) {
    let Some(build) = ledger.builds.get_mut(&job.build) else {
        return;
    };
    let is_waiting = build.jobs[job.index as usize].state == JobState::Waiting;
    if !is_waiting || build.stop.is_some() {
        return;
    }
    match readiness(build, job.index) {
        Readiness::Later { .. } => {}
        Readiness::Never { needs } => {
            ledger.index.doomed.insert(job, needs);
        }
        Readiness::Now => {
            let build = build.make_mut();
            let ready = &mut build.jobs[job.index as usize];
            ready.state = JobState::Ready;
            if ready.is_again() {
                ledger.index.again.insert(job);
            }
            ledger.index.queue.insert(build, job);
        }
    }
}

fn restarted(
    ledger: &mut Ledger,
    id: BuildId,
    unit: u32,
    cause: RestartCause,
) -> Result<(), FoldError> {
    let build = known_build_mut(ledger, id)?;
    let unknown = FoldError::UnknownIndex {
        build: id,
        index: unit,
    };
    let of = build.units.get_mut(unit as usize).ok_or(unknown)?;
    // A live lease fences its job, and with it the unit.
    if let Some(&index) = of
        .jobs
        .iter()
        .find(|&&job| build.jobs[job as usize].lease().is_some())
    {
        let job = JobId { build: id, index };
        return Err(FoldError::Standing { job });
    }
    let placement = of.placement.take();
    of.is_broken = false;
    let counts = cause != RestartCause::WorkerLeaves;
    of.restarts += u32::from(counts);
    let jobs = of.jobs.clone();
    for &index in &jobs {
        let job = &mut build.jobs[index as usize];
        if job.outcome().is_some() {
            build.units[unit as usize].open += 1;
            build.open += 1;
        }
        job.state = JobState::Waiting;
        (job.ended, job.result) = (None, None);
        job.returns = 0;
        if counts {
            // The unit counts them from here on.
            job.faults = 0;
        }
    }
    if let Some(placement) = placement {
        ledger.index.unbind(id, unit, &placement.worker);
    }
    for index in jobs {
        let job = JobId { build: id, index };
        ledger.index.queue.remove(job);
        ledger.index.again.remove(&job);
        ledger.index.doomed.remove(&job);
        refresh(ledger, job);
    }
    Ok(())
}

/// From here on, nothing of the build starts; and so nothing is skipped.
fn stopping(ledger: &mut Ledger, id: BuildId, cause: StopCause) -> Result<(), FoldError> {
    change(ledger, id, |build| build.stop = Some(cause))?;
    let doomed = &mut ledger.index.doomed;
    doomed.retain(|job, _| job.build != id);
    Ok(())
}

fn ended(
    ledger: &mut Ledger,
    id: BuildId,
    outcome: Outcome,
    at: WallTime,
) -> Result<(), FoldError> {
    change(ledger, id, |build| {
        build.ended = Some(Ending { outcome, at });
    })?;
    ledger.index.close(id);
    ledger.index.add_ended(id, &ledger.builds[&id], at);
    Ok(())
}

fn deleted(ledger: &mut Ledger, id: BuildId) -> Result<(), FoldError> {
    let unknown = FoldError::UnknownBuild { build: id };
    let build = ledger.builds.remove(&id).ok_or(unknown)?;
    ledger.index.remove(id, &build);
    Ok(())
}

/// Changes a build and keeps the index of limits true.
fn change(
    ledger: &mut Ledger,
    id: BuildId,
    with: impl FnOnce(&mut Build),
) -> Result<(), FoldError> {
    let build = known_build_mut(ledger, id)?;
    let before = build.limit();
    with(build);
    let after = build.limit();
    if let Some(before) = before {
        ledger.index.limits.remove(&(before, id));
    }
    ledger.index.limits.extend(after.map(|limit| (limit, id)));
    Ok(())
}

fn known_build_mut(ledger: &mut Ledger, id: BuildId) -> Result<&mut Build, FoldError> {
    let build = ledger.builds.get_mut(&id).map(Shared::make_mut);
    build.ok_or(FoldError::UnknownBuild { build: id })
}

pub(crate) fn known_job(ledger: &Ledger, job: JobId) -> Result<&Build, FoldError> {
    let JobId { build, index } = job;
    let known = ledger.builds.get(&build);
    let known = known.ok_or(FoldError::UnknownBuild { build })?;
    if known.jobs.len() <= index as usize {
        return Err(FoldError::UnknownIndex { build, index });
    }
    Ok(known)
}
