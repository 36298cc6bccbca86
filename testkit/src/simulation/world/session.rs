//! The coordinator's side of the links: what comes over them becomes events.

use protocol::message::work::{HeldLease, WorkerMessage};
use scheduler::{Event, SessionId};

use super::{Payload, World, coordinator::Order};

impl World {
    pub(super) fn coordinator_hears(&mut self, link: usize, payload: Payload) {
        match payload {
            Payload::Worker(message) => self.worker_said(link, message),
            log @ (Payload::LogStart(_) | Payload::LogPiece(..)) => {
                self.coordinator_takes_log(link, log);
            }
            Payload::Coordinator(_) | Payload::LogAck(..) | Payload::LogRefused(_) => {}
        }
    }

    fn worker_said(&mut self, link: usize, message: WorkerMessage) {
        let of = &self.links[link];
        let newer = self.links[link + 1..].iter();
        let mut newer = newer.filter(|newer| newer.worker == of.worker && newer.session.is_some());
        if newer.next().is_some() {
            self.tally
                .add("message of an old session after that of a new one");
        }
        if let WorkerMessage::Join {
            offer,
            incarnation,
            connection,
            ended,
            leaving,
            holds,
        } = message
        {
            let Some(up) = &mut self.coordinator.up else {
                return;
            };
            let session = SessionId(up.next_session);
            up.next_session += 1;
            up.sessions.insert(session, link);
            self.links[link].session = Some(session);
            self.order(Order::Event(
                Event::WorkerJoined {
                    session,
                    team: "red".parse().unwrap(),
                    incarnation,
                    connection,
                    ended,
                    leaving,
                    offer: Box::new(offer),
                    holds,
                },
                None,
            ));
            return;
        }
        let Some(session) = of.session else { return };
        let event = match message {
            // The scheduler hears nothing of restores.
            WorkerMessage::Join { .. } | WorkerMessage::Restoring { .. } => return,
            WorkerMessage::Renew { sequence, leases } => Event::Renew {
                session,
                sequence,
                leases,
            },
            WorkerMessage::Finished { lease, result } => Event::Finished {
                session,
                lease,
                result,
            },
            WorkerMessage::Began { lease } => Event::Began { session, lease },
            WorkerMessage::Declined { lease } => Event::Declined { session, lease },
            WorkerMessage::HandOver { leases } => Event::HandOver { session, leases },
            WorkerMessage::Leaving => Event::Leaving { session },
        };
        self.order(Order::Event(event, None));
    }

    /// The coordinator sees that a link is gone.
    pub(super) fn coordinator_notices(&mut self, link: usize) {
        let of = &mut self.links[link];
        if !of.at_coordinator {
            return;
        }
        of.at_coordinator = false;
        if let Some(session) = of.session {
            self.order(Order::Event(Event::WorkerLeft { session }, None));
        }
    }

    /// Leases that are others', as a worker that lies would name them.
    pub(super) fn foreign(&self, worker: usize) -> Vec<HeldLease> {
        let own = &self.workers[worker];
        let others = self
            .workers
            .iter()
            .filter(|of| of.offer.name != own.offer.name);
        let running = others.flat_map(|of| of.running.values());
        running
            .map(|running| HeldLease {
                lease: running.start.lease,
                job: running.start.job,
                attempt: running.start.attempt,
            })
            .collect()
    }
}
