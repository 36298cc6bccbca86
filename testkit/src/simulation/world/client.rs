//! Clients: each submits a build and follows it to its end, over however many connections that takes.

use std::collections::BTreeMap;

use protocol::{
    build::{BuildId, Outcome, Status},
    job::JobId,
};
use scheduler::{Event, Submission};

use super::{
    Happening, World,
    coordinator::{Order, Question},
};
use crate::simulation::{
    sample,
    script::{Micros, SECOND},
    truth::check,
};

/// How long a client waits for the answer to its submission before it asks over a new connection.
const PATIENCE: Micros = 10 * SECOND;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    submission: Box<Submission>,
    /// The build that it wants again.
    retries: Option<BuildId>,
    /// Counts its connections.
    pub(super) connection: u64,
    /// When it can connect again.
    pub(super) cut_until: Micros,
    is_taken: bool,
    end: Option<Outcome>,
    /// Its build was deleted, or never taken.
    is_gone: bool,
    /// How phases stand, as far as it was told.
    phases: BTreeMap<u32, Status>,
    /// How phases stand, as far as this connection has carried it.
    shown: BTreeMap<u32, Status>,
    following: Following,
    /// Whether a look of it waits in the coordinator's queue.
    looks: bool,
    hears_at: Micros,
}

/// Whether a connection of a client follows its build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Following {
    NotYet,
    Now,
    /// The coordinator has sent the end over it.
    Over,
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum News {
    /// Its build is taken.
    Taken,
    /// There is no such build, or not any more.
    Gone,
    /// Phases that stand otherwise, and the end if there is one.
    Look(Vec<(u32, Status)>, Option<Outcome>),
}

impl Client {
    /// Whether it waits for nothing any more.
    pub(super) const fn is_done(&self) -> bool {
        self.end.is_some() || self.is_gone
    }

    /// Whether it was told that its build is taken.
    pub(super) const fn is_taken(&self) -> bool {
        self.is_taken
    }
}

impl World {
    /// Somebody wants a build.
    pub(super) fn submit(&mut self, number: u64, submission: Submission, retries: Option<BuildId>) {
        let client = Client {
            submission: Box::new(submission),
            retries,
            connection: 0,
            cut_until: 0,
            is_taken: false,
            end: None,
            is_gone: false,
            phases: BTreeMap::new(),
            shown: BTreeMap::new(),
            following: Following::NotYet,
            looks: false,
            hears_at: 0,
        };
        self.clients.insert(number, client);
        self.at(self.now, Happening::ClientTries(number, 0));
    }

    /// A client connects, and says what it wants.
    pub(super) fn client_tries(&mut self, number: u64, connection: u64) {
        let is_there = self.coordinator.is_there(self.now) && self.cache.is_up;
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if client.is_done() || client.connection != connection {
            return;
        }
        if !is_there || self.now < client.cut_until {
            let wait = self.dice.below("client", &[number, self.now], SECOND);
            self.after(
                SECOND / 2 + wait,
                Happening::ClientTries(number, connection),
            );
            return;
        }
        if client.is_taken {
            self.follow(number);
            return;
        }
        let submission = client.submission.clone();
        let source = submission.source.as_ref();
        let source = source.expect("simulated builds have a source").tree.digest;
        let build = submission.build;
        let retries = client.retries;
        if retries.is_none() {
            self.cache.put(source, self.now);
        }
        if !self.cache.name_source(build, source) {
            // The source of what it wants again is gone.
            self.cache.forget(build);
            self.clients.remove(&number);
            return;
        }
        let event = match retries {
            None => Event::Submit(submission),
            Some(first) => Event::Retry {
                build: first,
                retry: build,
                initiator: "ann".to_owned(),
            },
        };
        let question = Question::Taken(number, connection);
        self.order(Order::Event(event, Some(question)));
        if let Some(client) = self.clients.get_mut(&number) {
            client.connection += 1;
            let question = client.connection;
            self.tally.add("submission said");
            self.after(PATIENCE, Happening::ClientTries(number, question));
        }
    }

    /// Has the client of a build look at it.
    pub(super) fn ring(&mut self, build: BuildId) {
        let mut clients = self.clients.iter();
        let of = clients.find(|(_, client)| client.submission.build == build);
        let number = of
            .filter(|(_, client)| client.is_taken)
            .map(|(number, _)| *number);
        if let Some(number) = number {
            self.look(number);
        }
    }

    /// Has the build looked at from here on whenever something happens to it.
    fn follow(&mut self, number: u64) {
        let client = self.clients.get_mut(&number);
        let is_new = |client: &&mut Client| client.following == Following::NotYet;
        if let Some(client) = client.filter(is_new) {
            client.following = Following::Now;
            client.shown.clear();
            self.look(number);
        }
    }

    fn look(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if client.following == Following::Now && !client.looks {
            client.looks = true;
            let question = Question::Look(number, client.connection);
            self.order(Order::Ask(question));
        }
    }

    /// Answers a question about what is durable.
    pub(super) fn answer(&mut self, question: Question) {
        let (Question::Taken(number, _) | Question::Look(number, _)) = question;
        let clocks = self.coordinator.clocks(self.now);
        let (Some(up), Some(client)) = (&self.coordinator.up, self.clients.get_mut(&number)) else {
            return;
        };
        let state = up.brain.scheduler().state();
        let build = client.submission.build;
        let (connection, news) = match question {
            Question::Taken(_, connection) => {
                let is_known = scheduler::submission(state, build).is_some();
                let news = if is_known { News::Taken } else { News::Gone };
                (connection + 1, news)
            }
            Question::Look(_, connection) => {
                // Who looked over a connection that is gone went with it.
                if client.connection != connection {
                    return;
                }
                client.looks = false;
                let detail = scheduler::build_detail(state, build, clocks);
                let news = detail.map_or(News::Gone, |detail| {
                    let units = detail.units.into_iter();
                    let phases = units.flat_map(|unit| unit.phases);
                    let mut changed = Vec::new();
                    for phase in phases {
                        let before = client.shown.insert(phase.job, phase.status);
                        if before != Some(phase.status) {
                            changed.push((phase.job, phase.status));
                        }
                    }
                    let end = match detail.summary.status {
                        Status::Ended(outcome) => Some(outcome),
                        Status::Queued | Status::InProgress => None,
                    };
                    // With the end the coordinator closes the connection.
                    if end.is_some() {
                        client.following = Following::Over;
                    }
                    News::Look(changed, end)
                });
                (connection, news)
            }
        };
        let delay = self
            .dice
            .below("client hears", &[number, self.now], SECOND / 5);
        let at = client.hears_at.max(self.now + delay);
        client.hears_at = at;
        self.at(
            at,
            Happening::ClientHears(number, connection, Box::new(news)),
        );
    }

    /// A client is told something.
    pub(super) fn client_hears(&mut self, number: u64, connection: u64, news: News) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if client.connection != connection || client.is_gone {
            self.tally.add("client has gone before it hears");
            return;
        }
        let build = client.submission.build;
        match news {
            News::Taken => {
                client.is_taken = true;
                let promised = self.truth.promised(build);
                self.require(promised);
                self.follow(number);
            }
            News::Gone => {
                let may_be = client.retries.is_some() || self.truth.is_deleted(build);
                client.is_gone = true;
                self.require(check(may_be, || format!("nobody knows {build} any more")));
            }
            News::Look(phases, end) => {
                for (job, status) in phases {
                    let may_change = self.truth.has_restarted(JobId { build, index: job });
                    let before = client.phases.insert(job, status);
                    let is_taken_back = matches!(before, Some(Status::Ended(_)))
                        && before != Some(status)
                        && !may_change;
                    if is_taken_back && self.broken.is_none() {
                        self.broken = Some(format!(
                            "job {job} of {build} was {before:?}, and is {status:?}"
                        ));
                    }
                }
                let Some(outcome) = end else { return };
                let before = client.end.replace(outcome);
                self.tally.add("client hears the end");
                let told = check(before.is_none(), || {
                    format!("the end of {build} is told twice")
                });
                let told = told.and_then(|()| self.truth.told_end(build, outcome));
                self.require(told);
            }
        }
    }

    /// The coordinator is gone: all clients lose their connections.
    pub(super) fn clients_cut_off(&mut self) {
        let numbers: Vec<u64> = self.clients.keys().copied().collect();
        for number in numbers {
            self.client_cut_off(number, 0);
        }
    }

    pub(super) fn client_cut_off(&mut self, number: u64, lasts: Micros) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        client.connection += 1;
        client.cut_until = self.now + lasts;
        client.following = Following::NotYet;
        client.looks = false;
        let connection = client.connection;
        let wait = self
            .dice
            .below("client comes back", &[number, self.now], 3 * SECOND);
        self.after(lasts + wait, Happening::ClientTries(number, connection));
    }

    /// The number under which scripts know a build that a client was told is taken.
    pub(super) fn taken(&self, number: u64) -> Option<BuildId> {
        let client = self.clients.get(&number)?;
        client.is_taken().then(|| sample::build_id(number))
    }

    /// What was submitted as a build.
    pub(super) fn submitted(&self, number: u64) -> Option<&Submission> {
        Some(&self.clients.get(&number)?.submission)
    }
}
