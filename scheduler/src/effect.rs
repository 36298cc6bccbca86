//! Effects: what to do about what was decided.
//!
//! An effect leaves only after the facts that came before it are synced. Carrying one out twice, or
//! not at all because the coordinator died, does no harm: leases run out, workers and clients ask
//! again, and the shell looks at [`active_builds`](crate::active_builds) when it starts.

use protocol::{
    build::BuildId,
    job::JobId,
    lease::LeaseId,
    message::work::RevokeReason,
    name::{Namespace, WorkerName},
};

use crate::{event::SessionId, fact::Fact, state::State};

/// Something to be done in the world.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send the assignment that [`assignment`](crate::assignment()) gives for `lease`; nothing, if it
    /// gives none by then.
    Assign {
        /// To whom.
        session: SessionId,
        /// The right to the attempt.
        lease: LeaseId,
    },
    /// Tell a worker to kill an attempt.
    Revoke {
        /// To whom.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
        /// Why.
        reason: RevokeReason,
    },
    /// Answer a renewal.
    Renewed {
        /// To whom.
        session: SessionId,
        /// The worker's count.
        sequence: u64,
        /// The leases that live on.
        leases: Vec<LeaseId>,
    },
    /// Tell a worker that it may forget a result.
    Acknowledge {
        /// To whom.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// Tell a worker that it has joined.
    Joined {
        /// To whom.
        session: SessionId,
        /// Of the leases that it holds, those that it may go on with.
        leases: Vec<LeaseId>,
    },
    /// Tell a worker that the first command of an attempt may start.
    GoAhead {
        /// To whom.
        session: SessionId,
        /// The attempt's lease.
        lease: LeaseId,
    },
    /// Tell a worker to let its attempts and the units that it has the state of end, and leave.
    Drain {
        /// To whom.
        session: SessionId,
    },
    /// Tell a worker that leaves that nothing is left for it to do.
    Dismiss {
        /// To whom.
        session: SessionId,
    },
    /// Close a connection: another worker has come under the same name.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Tell watchers how a phase stands now.
    PhaseChanged {
        /// The job.
        job: JobId,
    },
    /// Tell watchers that a build has ended. Its snapshots are not needed any more; its source is, for
    /// a retry.
    BuildEnded {
        /// The build.
        build: BuildId,
    },
    /// Delete the source, snapshots, artifacts and logs of a build that is forgotten.
    DeleteContent {
        /// The build.
        build: BuildId,
        /// Where its results are.
        namespace: Namespace,
    },
}

/// What is to be done about `fact`, which is not folded yet.
pub(crate) fn effects(state: &State, fact: &Fact) -> Vec<Effect> {
    let session = |worker: &WorkerName| state.presence.session_of(worker);
    match fact {
        Fact::LeaseGranted {
            lease, job, worker, ..
        } => {
            let assign = session(worker).map(|session| Effect::Assign {
                session,
                lease: *lease,
            });
            assign.into_iter().chain(changed(*job)).collect()
        }
        Fact::LeaseLost {
            lease, job, worker, ..
        } => {
            let revoke = session(worker).map(|session| Effect::Revoke {
                session,
                lease: *lease,
                reason: RevokeReason::Lost,
            });
            revoke.into_iter().chain(changed(*job)).collect()
        }
        Fact::LeaseReturned {
            lease, job, worker, ..
        }
        | Fact::AttemptFaulted {
            lease, job, worker, ..
        }
        | Fact::JobEnded {
            lease, job, worker, ..
        } => {
            let acknowledge = session(worker).map(|session| Effect::Acknowledge {
                session,
                lease: *lease,
            });
            acknowledge.into_iter().chain(changed(*job)).collect()
        }
        Fact::AttemptBegan { lease, worker, .. } => {
            let go_ahead = session(worker).map(|session| Effect::GoAhead {
                session,
                lease: *lease,
            });
            go_ahead.into_iter().collect()
        }
        Fact::JobSkipped { job, .. } | Fact::JobGivenUp { job, .. } => {
            changed(*job).into_iter().collect()
        }
        Fact::UnitRestarted { build, unit, .. } => restarted(state, *build, *unit),
        Fact::StopRequested { build, .. } => revoked(state, *build, fact),
        Fact::BuildEnded { build, .. } => vec![Effect::BuildEnded { build: *build }],
        Fact::BuildDeleted { build, .. } => {
            let known = state.ledger.builds.get(build);
            let deleted = known.map(|known| Effect::DeleteContent {
                build: *build,
                namespace: known.submission.namespace.clone(),
            });
            deleted.into_iter().collect()
        }
        Fact::WorkerDraining { worker, .. } => {
            let drain = session(worker).map(|session| Effect::Drain { session });
            drain.into_iter().collect()
        }
        Fact::SourcesFetched { .. } => planned(state, fact),
        Fact::BuildSubmitted { .. }
        | Fact::WorkerDrained { .. }
        | Fact::ProjectSaved { .. }
        | Fact::ProjectDeleted { .. }
        | Fact::CachesInvalidated { .. } => Vec::new(),
    }
}

/// Every phase of a build that is planned now stands otherwise than before.
fn planned(state: &State, fact: &Fact) -> Vec<Effect> {
    let Fact::SourcesFetched {
        lease,
        job,
        worker,
        submission,
        ..
    } = fact
    else {
        return Vec::new();
    };
    let (lease, build) = (*lease, job.build);
    let session = state.presence.session_of(worker);
    let acknowledge = session.map(|session| Effect::Acknowledge { session, lease });
    let jobs = (0..).zip(&submission.graph.jobs);
    let planned = jobs.map(|(index, _)| Effect::PhaseChanged {
        job: JobId { build, index },
    });
    acknowledge.into_iter().chain(planned).collect()
}

fn changed(job: JobId) -> Option<Effect> {
    Some(Effect::PhaseChanged { job })
}

/// Every phase of a unit that starts again stands otherwise than before.
fn restarted(state: &State, build: BuildId, unit: u32) -> Vec<Effect> {
    let unit = state
        .ledger
        .builds
        .get(&build)
        .and_then(|known| known.units.get(unit as usize));
    let jobs = unit.map_or(&[][..], |unit| &unit.jobs);
    jobs.iter()
        .map(|&index| Effect::PhaseChanged {
            job: JobId { build, index },
        })
        .collect()
}

/// Every attempt that runs is told that its build stops.
fn revoked(state: &State, build: BuildId, fact: &Fact) -> Vec<Effect> {
    let Fact::StopRequested { cause, .. } = fact else {
        return Vec::new();
    };
    let Some(known) = state.ledger.builds.get(&build) else {
        return Vec::new();
    };
    known
        .running()
        .filter_map(|lease| {
            let worker = &state.ledger.leases.get(&lease)?.worker;
            Some(Effect::Revoke {
                session: state.presence.session_of(worker)?,
                lease,
                reason: revoke_reason(*cause),
            })
        })
        .collect()
}

/// What a worker is told about a stop for `cause`.
pub(crate) const fn revoke_reason(cause: crate::fact::StopCause) -> RevokeReason {
    match cause {
        crate::fact::StopCause::TimedOut => RevokeReason::TimedOut,
        crate::fact::StopCause::Stopped | crate::fact::StopCause::FastFail => RevokeReason::Stopped,
    }
}
