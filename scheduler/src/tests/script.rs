//! The words of scripts, and a farm that plays them.
//!
//! ```text
//! 0s  join w1 slots 2 host base b team t anew holds 0 1
//!                                               a worker joins; all but its name may be left out; `anew`: as
//!                                               another process than before; `ended`: nothing runs of that one;
//!                                               `connection 3`: the third of it;
//!                                               `leaving`: it takes nothing new
//! 0s  leave w1 | leaving w1 | drain w1         its connection is lost; it says it leaves; somebody says so
//! 0s  renew w1 0 1                             it renews these leases
//! 0s  again w1 0 1                             it says the renewal before once more
//! 0s  began w1 0 | declined w1 0               it is about to start a command; it does not begin
//! 0s  heard 0                                  of this attempt something of its log has come
//! 0s  hand-over w1 0 1                         it has killed these attempts
//! 0s  ok w1 0                                  an attempt ended: ok, fail, fault, stopped, timed-out, bare,
//!                                               state-lost
//! 0s  submit b1 fast-fail install,build        a build of one unit; also team=T, priority=N, rerun=PHASE
//! 0s  submit b1 a:build b!:build>a             a batch; `!`: failure ignored; `>a+b`: depends on
//! 0s  stop b1 | delete b1 | retry b1 b2
//! 0s  restart                                  the coordinator dies and starts again from its facts
//! 0s  why b1                                   writes down why phases of b1 wait
//! 0s  submit b1 from=git download               a build whose source is fetched; also at-once=N
//! 0s  fetched w1 0 download,build              it was, and the build is planned like this
//! 0s  save red shop | update red shop | forget red shop | invalidate red shop
//!                                               a project is made, changed, forgotten; its caches made invalid
//! 0s  tick
//! ```

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    build::BuildId,
    digest::Digest,
    job::JobId,
    lease::LeaseId,
    message::work::HeldLease,
    project::Project,
    time::{Time, WallTime},
    worker::{Incarnation, Isolation},
};

use crate::{
    Config, Decision, Effect, Event, Fact, Ledger, Now, Scheduler, SessionId, StopCause,
    build_detail, live_attempt,
    tests::sample::{build_id, fetched, offer, result, submission},
};

/// A wall clock that differs from the monotonic one by a round number.
pub(crate) const EPOCH: WallTime = WallTime(1_000_000);

/// A scheduler with what was said and done so far.
pub(crate) struct Farm {
    pub(crate) scheduler: Scheduler,
    pub(crate) facts: Vec<Fact>,
    pub(crate) transcript: Vec<String>,
    config: Config,
    sessions: BTreeMap<String, SessionId>,
    names: BTreeMap<SessionId, String>,
    incarnations: BTreeMap<String, u64>,
    sequence: u64,
}

impl Default for Farm {
    fn default() -> Self {
        Self {
            scheduler: Scheduler::new(Config::default()),
            facts: Vec::new(),
            transcript: Vec::new(),
            config: Config::default(),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            sequence: 0,
        }
    }
}

/// A farm on which this has happened.
pub(crate) fn farm(script: &str) -> Farm {
    let mut farm = Farm::default();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        farm.play(line);
    }
    farm
}

impl Farm {
    /// A farm with settings of its own.
    pub(crate) fn with(config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(config.clone()),
            config,
            ..Self::default()
        }
    }

    /// Plays one line.
    pub(crate) fn play(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, words) = words.split_first().expect("lines start with a time");
        let now = now(at);
        match *words {
            ["restart"] => self.restart(now),
            ["why", build] => self.why(at, build_id(build), now),
            _ => {
                let event = self.event(words);
                let shows_join = words.contains(&"holds");
                let decision = self.apply(now, event);
                let lines = self.lines(&decision, shows_join);
                let lines = lines.into_iter().map(|line| format!("{at} {line}"));
                self.transcript.extend(lines);
            }
        }
    }

    /// Applies an event and keeps its facts.
    pub(crate) fn apply(&mut self, now: Now, event: Event) -> Decision {
        let decision = self.scheduler.apply(now, event);
        self.facts.extend(decision.facts.iter().cloned());
        decision
    }

    /// Starts the coordinator again from its facts.
    pub(crate) fn restart(&mut self, now: Now) {
        self.check_ledger();
        self.scheduler = Scheduler::new(self.config.clone());
        for fact in &self.facts {
            self.scheduler.replay(fact).unwrap();
        }
        self.scheduler.recovered(now);
        self.sessions.clear();
    }

    /// The facts make the same ledger again, and so does what a state snapshot keeps.
    #[track_caller]
    pub(crate) fn check_ledger(&self) {
        let live = self.scheduler.ledger();
        assert_eq!(
            replayed(&self.facts).ledger(),
            live,
            "facts make another ledger"
        );
        let kept = serde_json::to_string(live).unwrap();
        let restored: Ledger = serde_json::from_str(&kept).unwrap();
        assert_eq!(restored, *live, "a snapshot makes another ledger");
    }

    fn why(&mut self, at: &str, build: BuildId, now: Now) {
        let detail = build_detail(self.scheduler.state(), build, now).unwrap();
        for unit in detail.units {
            for phase in unit.phases {
                if let Some(waits) = phase.waits {
                    self.transcript
                        .push(format!("{at} {}: {waits}", phase.phase));
                }
            }
        }
    }

    pub(crate) fn event(&mut self, words: &[&str]) -> Event {
        let known = self.sessions.clone();
        let session = |name: &str| *known.get(name).unwrap_or(&SessionId(u64::MAX));
        match *words {
            ["tick"] => Event::Tick,
            ["submit", build, ref graph @ ..] => Event::Submit(Box::new(submission(build, graph))),
            ["fetched", worker, lease, ref graph @ ..] => Event::Fetched {
                session: session(worker),
                lease: LeaseId(lease.parse().unwrap()),
                result: Box::new(fetched()),
                graph: Box::new(submission("b0", graph).graph),
            },
            [
                what @ ("save" | "update" | "forget" | "invalidate"),
                team,
                project,
            ] => of_project(what, team, project),
            ["stop", build] => Event::Stop {
                build: build_id(build),
            },
            ["delete", build] => Event::Delete {
                build: build_id(build),
            },
            ["retry", build, retry] => Event::Retry {
                build: build_id(build),
                retry: build_id(retry),
                initiator: "again".to_owned(),
            },
            ["join", name, ref offer @ ..] => self.join(name, offer),
            ["leave", name] => Event::WorkerLeft {
                session: session(name),
            },
            ["leaving", name] => Event::Leaving {
                session: session(name),
            },
            ["drain", name] => Event::Drain {
                worker: name.parse().unwrap(),
            },
            [word @ ("renew" | "again" | "before"), name, ref leases @ ..] => {
                self.sequence += u64::from(word == "renew");
                Event::Renew {
                    session: session(name),
                    sequence: self.sequence - u64::from(word == "before"),
                    leases: leases.iter().map(|id| lease(id)).collect(),
                }
            }
            ["began", name, id] => Event::Began {
                session: session(name),
                lease: lease(id),
            },
            ["heard", id] => Event::Heard { lease: lease(id) },
            ["declined", name, id] => Event::Declined {
                session: session(name),
                lease: lease(id),
            },
            ["hand-over", name, ref leases @ ..] => Event::HandOver {
                session: session(name),
                leases: leases.iter().map(|id| lease(id)).collect(),
            },
            [outcome, name, id] => Event::Finished {
                session: session(name),
                lease: lease(id),
                result: Box::new(result(outcome)),
            },
            _ => panic!("no such event: {words:?}"),
        }
    }

    fn join(&mut self, name: &str, words: &[&str]) -> Event {
        let session = SessionId(self.names.len() as u64);
        self.sessions.insert(name.to_owned(), session);
        self.names.insert(session, name.to_owned());
        let mut offer = offer(name);
        let mut holds = Vec::new();
        let mut team = "red";
        let leaving = words.contains(&"leaving");
        let mut connection = None;
        let mut ended = None;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "slots" => offer.capacity = words.next().unwrap().parse().unwrap(),
                "host" => offer.isolation = Isolation::Host,
                "base" => offer.base = Digest::of(words.next().unwrap().as_bytes()),
                "connection" => connection = words.next().map(|word| word.parse().unwrap()),
                "leaving" => {}
                "offers" => {
                    let (runtime, version) = words.next().unwrap().split_once(':').unwrap();
                    let versions = offer.runtimes.entry(runtime.to_owned()).or_default();
                    versions.push(version.to_owned());
                }
                "label" => {
                    let (key, value) = words.next().unwrap().split_once(':').unwrap();
                    offer.labels.insert(key.to_owned(), value.to_owned());
                }
                "team" => team = words.next().unwrap(),
                "ended" => ended = self.incarnations.get(name).map(|now| Incarnation(now - 1)),
                "ended-itself" => ended = self.incarnations.get(name).copied().map(Incarnation),
                "anew" => *self.incarnations.entry(name.to_owned()).or_default() += 1,
                "holds" => holds.extend(words.by_ref().map(|id| self.held(lease(id)))),
                _ => panic!("no such word: {word}"),
            }
        }
        let incarnation = self.incarnations.get(name).copied().unwrap_or(0);
        Event::WorkerJoined {
            session,
            team: team.parse().unwrap(),
            incarnation: Incarnation(incarnation),
            connection: connection.unwrap_or(session.0),
            ended,
            offer: Box::new(offer),
            leaving,
            holds,
        }
    }

    /// What a worker would say of a lease that it holds.
    fn held(&self, lease: LeaseId) -> HeldLease {
        let granted = self.facts.iter().find_map(|fact| match fact {
            Fact::LeaseGranted {
                lease: granted,
                job,
                attempt,
                ..
            } if *granted == lease => Some((*job, *attempt)),
            _ => None,
        });
        let (job, attempt) = granted.expect("leases that are held were granted");
        HeldLease {
            lease,
            job,
            attempt,
        }
    }

    fn lines(&self, decision: &Decision, shows_join: bool) -> Vec<String> {
        let facts = decision.facts.iter().filter_map(|fact| self.fact(fact));
        let is_taken = |id: LeaseId| {
            decision.facts.iter().any(|fact| {
                matches!(
                    fact,
                    Fact::JobEnded { lease, .. }
                        | Fact::AttemptFaulted { lease, .. }
                        | Fact::LeaseReturned { lease, .. }
                        | Fact::SourcesFetched { lease, .. }
                    if *lease == id
                )
            })
        };
        let effects = decision.effects.iter().filter(|effect| match effect {
            Effect::Acknowledge { lease, .. } => !is_taken(*lease),
            Effect::Joined { .. } => shows_join,
            _ => true,
        });
        let effects = effects.filter_map(|effect| self.effect(effect));
        let ignored = decision.ignored.iter();
        let ignored = ignored.map(|why| format!("ignored: {}", why.as_str()));
        facts.chain(effects).chain(ignored).collect()
    }

    fn fact(&self, fact: &Fact) -> Option<String> {
        Some(match fact {
            Fact::BuildSubmitted { .. } | Fact::LeaseGranted { .. } => return None,
            Fact::AttemptBegan { job, .. } => format!("{} began", self.job(*job)),
            Fact::LeaseReturned {
                lease, job, cause, ..
            } => format!("{} returned {}: {cause:?}", self.job(*job), lease.0),
            Fact::LeaseLost { lease, job, .. } => format!("{} lost {}", self.job(*job), lease.0),
            Fact::AttemptFaulted { job, .. } => format!("{} faulted", self.job(*job)),
            Fact::JobEnded { job, outcome, .. } => format!("{} {outcome}", self.job(*job)),
            Fact::JobSkipped { job, needs, .. } => {
                let needs = JobId {
                    build: job.build,
                    index: *needs,
                };
                format!("{} skipped for {}", self.job(*job), self.job(needs))
            }
            Fact::JobGivenUp { job, outcome, .. } => {
                format!("{} given up: {outcome}", self.job(*job))
            }
            Fact::UnitRestarted {
                build,
                unit,
                worker,
                cause,
                ..
            } => format!("b{} unit {unit} starts again: {cause:?} {worker}", build.0),
            Fact::StopRequested { build, cause, .. } => match cause {
                StopCause::Stopped => format!("b{} stops", build.0),
                StopCause::TimedOut => format!("b{} stops: over its limit", build.0),
                StopCause::FastFail => format!("b{} stops: fast-fail", build.0),
            },
            Fact::BuildEnded { build, outcome, .. } => format!("b{} {outcome}", build.0),
            Fact::BuildDeleted { build, .. } => format!("b{} deleted", build.0),
            Fact::WorkerDraining { worker, .. } => format!("{worker} drains"),
            Fact::WorkerDrained { worker, .. } => format!("{worker} is drained"),
            Fact::SourcesFetched { job, .. } => format!("{} fetched", self.job(*job)),
            Fact::ProjectSaved { project, .. } => format!("project {} saved", project.name),
            Fact::ProjectDeleted { project, .. } => format!("project {project} deleted"),
            Fact::CachesInvalidated {
                project,
                generation,
                ..
            } => format!("caches of {project} invalid: {generation}"),
        })
    }

    fn effect(&self, effect: &Effect) -> Option<String> {
        let name = |session: &SessionId| self.names[session].as_str();
        let ids = |leases: &[LeaseId]| match leases {
            [] => "none".to_owned(),
            _ => leases
                .iter()
                .map(|id| id.0.to_string())
                .collect::<Vec<_>>()
                .join(" "),
        };
        Some(match effect {
            Effect::Assign { session, lease } => {
                let (job, attempt) = live_attempt(self.scheduler.state(), *lease)?;
                let again = match attempt {
                    1 => String::new(),
                    _ => format!(" (attempt {attempt})"),
                };
                format!(
                    "run {}{again} on {} under {}",
                    self.job(job),
                    name(session),
                    lease.0
                )
            }
            Effect::Revoke {
                session,
                lease,
                reason,
            } => format!("revoke {} from {}: {reason:?}", lease.0, name(session)),
            Effect::Renewed {
                session,
                sequence,
                leases,
            } if *sequence == self.sequence => {
                format!("renewed for {}: {}", name(session), ids(leases))
            }
            Effect::Renewed { .. } => panic!("a renewal is answered with another's number"),
            Effect::Acknowledge { session, lease } => {
                format!("acknowledge {} to {}", lease.0, name(session))
            }
            Effect::Joined { session, leases } => {
                format!("joined {}: {}", name(session), ids(leases))
            }
            Effect::GoAhead { session, lease } => {
                format!("go ahead {} on {}", lease.0, name(session))
            }
            Effect::Dismiss { session } => format!("dismiss {}", name(session)),
            Effect::Drain { session } => format!("tell {} to leave", name(session)),
            Effect::Close { session } => format!("close the old session of {}", name(session)),
            Effect::PhaseChanged { .. }
            | Effect::BuildEnded { .. }
            | Effect::DeleteContent { .. } => return None,
        })
    }

    /// `b1.BUILD`, or `b1.a.BUILD` in a batch.
    fn job(&self, id: JobId) -> String {
        let state = self.scheduler.state();
        let Some((build, _)) = state.ledger.job(id) else {
            return format!("{id:?}");
        };
        let node = build.node(id.index);
        match &build.submission.graph.units[node.unit as usize].identifier {
            Some(unit) => format!("b{}.{unit}.{}", id.build.0, node.phase),
            None => format!("b{}.{}", id.build.0, node.phase),
        }
    }
}

/// A scheduler that knows these facts and nothing else.
pub(crate) fn replayed(facts: &[Fact]) -> Scheduler {
    let mut scheduler = Scheduler::new(Config::default());
    for fact in facts {
        let line = serde_json::to_string(fact).unwrap();
        let read: Fact = serde_json::from_str(&line).unwrap();
        assert_eq!(read, *fact, "a fact does not survive its JSON");
        scheduler.replay(&read).unwrap();
    }
    scheduler
}

/// `90s`, `1500ms` or `61m` after the start.
fn now(text: &str) -> Now {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().expect("times are numbers with a unit");
    let since = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        unit => panic!("no such unit: {unit}"),
    };
    moment(since)
}

/// Both clocks, so long after the start.
pub(crate) fn moment(since: Duration) -> Now {
    Now {
        time: Time::ZERO + since,
        wall: EPOCH + since,
    }
}

fn lease(text: &str) -> LeaseId {
    LeaseId(text.parse().expect("leases are numbers"))
}

/// What happens to a project.
fn of_project(what: &str, team: &str, project: &str) -> Event {
    let (team, project) = (team.parse().unwrap(), project.parse().unwrap());
    match what {
        "forget" => Event::DeleteProject { team, project },
        "invalidate" => Event::InvalidateCaches { team, project },
        _ => Event::SaveProject {
            team,
            project: Box::new(Project::new(project)),
            is_there: what == "update",
        },
    }
}
