//! Deciding: the order in which one event is gone through.
//!
//! Time moves first: what ended by now cannot be renewed or finished now. Then the event; then what
//! follows from both for the builds they touched; last, free workers get jobs. Rules only read the
//! state and record facts; facts change it.

use protocol::{
    build::BuildId,
    graph::{JOBS_MAX, JobGraph},
    name::WorkerName,
};

use crate::{
    effect::{Effect, effects},
    event::{Event, Ignored, Now, SessionId, Submission},
    fact::{Fact, Limits, StopCause},
    fetched,
    fold::fold,
    lease, placement,
    presence::Connected,
    project,
    scheduler::Decision,
    settle,
    state::{self, State},
    weights::room,
    worker,
};

/// Decides what follows from `event`.
pub(crate) fn decide(state: &mut State, now: Now, event: Event) -> Decision {
    let mut turn = Turn {
        state,
        now,
        decision: Decision::default(),
    };
    lease::expire(&mut turn);
    apply(&mut turn, event);
    settle::settle(&mut turn);
    placement::assign(&mut turn);
    worker::dismiss(&mut turn);
    turn.decision
}

/// One event on its way: the state so far, and what was decided so far.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: Now,
    decision: Decision,
}

impl Turn<'_> {
    /// Decides `fact`: from here on it is so.
    ///
    /// # Panics
    ///
    /// If it does not fit the state: a rule that records it is wrong.
    pub(crate) fn record(&mut self, fact: Fact) {
        let effects = effects(self.state, &fact);
        fold(&mut self.state.ledger, &fact).expect("what is decided fits the state");
        self.state
            .presence
            .follow(&self.state.ledger, &fact, self.now);
        self.decision.facts.push(fact);
        self.decision.effects.extend(effects);
    }

    /// Adds an effect that comes from no fact.
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.decision.effects.push(effect);
    }

    /// Says that something that came changes nothing.
    pub(crate) fn ignore(&mut self, why: Ignored) {
        self.decision.ignored.push(why);
    }

    /// The worker behind a session; if there is none, what it says is too late.
    pub(crate) fn sender(&mut self, session: SessionId) -> Option<WorkerName> {
        let name = self.state.presence.name_of(session).cloned();
        if name.is_none() {
            self.ignore(Ignored::Late);
        }
        name
    }
}

fn apply(turn: &mut Turn<'_>, event: Event) {
    match event {
        Event::Submit(submission) => submit(turn, submission),
        Event::Retry {
            build,
            retry,
            initiator,
        } => {
            if let Some(known) = turn.state.ledger.builds.get(&build) {
                let mut submission = known.submission.clone();
                submission.build = retry;
                submission.initiator = initiator;
                submit(turn, submission);
            }
        }
        Event::Stop { build } => stop(turn, build, StopCause::Stopped),
        Event::Delete { build } => {
            let known = turn.state.ledger.builds.get(&build);
            if known.is_some_and(|known| known.ended.is_some()) {
                let at = turn.now.wall;
                turn.record(Fact::BuildDeleted { build, at });
            }
        }
        Event::WorkerJoined {
            session,
            team,
            incarnation,
            connection,
            ended,
            offer,
            leaving,
            holds,
        } => {
            let process = (incarnation, connection);
            let mut connected = Connected::new((session, team), process, offer, turn.now);
            connected.is_leaving = leaving;
            worker::join(turn, connected, &holds, ended);
        }
        Event::WorkerLeft { session } => worker::leave(turn, session),
        Event::Renew {
            session,
            sequence,
            leases,
        } => lease::renew(turn, session, sequence, leases),
        Event::Finished {
            session,
            lease,
            result,
        } => lease::finish(turn, session, lease, result),
        Event::Began { session, lease } => lease::begin(turn, session, lease),
        Event::Heard { lease } => lease::heard(turn, lease),
        Event::Declined { session, lease } => lease::decline(turn, session, lease),
        Event::HandOver { session, leases } => worker::hand_over(turn, session, leases),
        Event::Leaving { session } => worker::leaving(turn, session),
        Event::Drain { worker } => worker::drain(turn, worker),
        Event::Fetched { .. }
        | Event::SaveProject { .. }
        | Event::DeleteProject { .. }
        | Event::InvalidateCaches { .. } => apply_of_projects(turn, event),
        Event::Tick => {}
    }
}

fn apply_of_projects(turn: &mut Turn<'_>, event: Event) {
    match event {
        Event::Fetched {
            session,
            lease,
            result,
            graph,
        } => fetched::fetched(turn, (session, lease), result, *graph),
        Event::SaveProject {
            team,
            project,
            is_there,
        } => project::save(turn, team, project, is_there),
        Event::DeleteProject { team, project } => project::delete(turn, team, project),
        Event::InvalidateCaches { team, project } => {
            project::invalidate_caches(turn, team, project);
        }
        _ => {}
    }
}

fn submit(turn: &mut Turn<'_>, mut submission: Box<Submission>) {
    let ledger = &turn.state.ledger;
    let is_known = ledger.builds.contains_key(&submission.build);
    let is_sound = state::is_sound(&submission.graph) && fits(&submission.graph);
    let room = || room(turn.state, &submission.team, submission.graph.weight());
    if is_known || !is_sound || room().is_err() || is_crowded(turn.state, &submission) {
        return;
    }
    let (config, batch_limit) = (turn.state.config.limits, turn.state.config.batch_limit);
    let terms = &mut submission.terms;
    terms.cache_generation = ledger
        .projects
        .generation(&submission.team, &submission.project);
    if let Some((namespace, generation)) = &mut terms.cache_shared {
        *generation = ledger
            .projects
            .shared_generation(&submission.team, namespace);
    }
    let limits = Limits {
        queue: terms
            .queue
            .map_or(config.queue, |own| own.min(config.queue)),
        run: match &terms.batch {
            // Its builds have the limit of any build each.
            Some(batch) => batch
                .limit()
                .map_or(batch_limit, |own| own.min(batch_limit)),
            None => terms.run.map_or(config.run, |own| own.min(config.run)),
        },
    };
    let numbers = ledger.numbers.get(&submission.team);
    let last = numbers.and_then(|of| of.get(&submission.project));
    turn.record(Fact::BuildSubmitted {
        number: last.copied().unwrap_or(0).saturating_add(1),
        order: ledger.next_order,
        limits,
        submission,
        at: turn.now.wall,
    });
}

/// Whether as many builds of its project are there as may be.
fn is_crowded(state: &State, submission: &Submission) -> bool {
    let active = || project::active_of_project(state, &submission.team, &submission.project);
    let max = submission.terms.concurrent_max;
    max.is_some_and(|max| usize::try_from(max).is_ok_and(|max| max <= active()))
}

/// Whether a graph is within what a build may have. Not asked again when a journal is read: a limit that
/// was lowered does not undo what was taken.
pub(crate) fn fits(graph: &JobGraph) -> bool {
    graph.jobs.len() <= JOBS_MAX && graph.units.len() <= JOBS_MAX
}

/// Stops a build, unless it has ended or stops already.
pub(crate) fn stop(turn: &mut Turn<'_>, build: BuildId, cause: StopCause) {
    let Some(known) = turn.state.ledger.builds.get(&build) else {
        return;
    };
    if known.ended.is_none() && known.stop.is_none() {
        let at = turn.now.wall;
        turn.record(Fact::StopRequested { build, cause, at });
    }
}
