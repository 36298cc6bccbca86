//! What the coordinator does about what was decided.

use protocol::{access::SignedGrant, build::BuildId, message::work::CoordinatorMessage};
use scheduler::{Effect, SessionId};

use super::{Happening, Lane, Payload, World};
use crate::simulation::script::SECOND;

impl World {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        let Some(up) = &self.coordinator.up else {
            return;
        };
        match effect {
            Effect::Assign { session, lease } => {
                let wall = self.coordinator.clocks(self.now).wall;
                let state = up.brain.scheduler().state();
                if let Some(draft) = scheduler::assignment(state, lease, wall) {
                    let assignment = draft.signed(SignedGrant {
                        grant: Vec::new(),
                        signature: Vec::new(),
                    });
                    self.tell(session, CoordinatorMessage::Assign(Box::new(assignment)));
                }
            }
            Effect::Revoke {
                session,
                lease,
                reason,
            } => self.tell(session, CoordinatorMessage::Revoke { lease, reason }),
            Effect::Renewed {
                session,
                sequence,
                leases,
            } => self.tell(session, CoordinatorMessage::Renewed { sequence, leases }),
            Effect::Acknowledge { session, lease } => {
                self.tell(session, CoordinatorMessage::Acknowledged { lease });
            }
            Effect::Joined { session, leases } => {
                let cache = ([127, 0, 0, 1], 1).into();
                self.tell(session, CoordinatorMessage::Joined { cache, leases });
            }
            Effect::GoAhead { session, lease } => {
                self.tell(session, CoordinatorMessage::GoAhead { lease });
            }
            Effect::Dismiss { session } => self.tell(session, CoordinatorMessage::Dismissed),
            Effect::Drain { session } => self.tell(session, CoordinatorMessage::Drain),
            Effect::Close { session } => self.close(session),
            Effect::PhaseChanged { job } => self.ring(job.build),
            Effect::BuildEnded { build } => {
                self.ring(build);
                self.tidy_later(build);
            }
            Effect::DeleteContent { build, .. } => {
                self.ring(build);
                self.tidy_later(build);
            }
        }
    }

    fn tell(&mut self, session: SessionId, message: CoordinatorMessage) {
        let up = self.coordinator.up.as_ref();
        let link = up.and_then(|up| up.sessions.get(&session).copied());
        if let Some(link) = link {
            self.say(link, Lane::SessionDown, Payload::Coordinator(message));
        }
    }

    /// Another worker has come under the same name: this one's link is closed.
    fn close(&mut self, session: SessionId) {
        let up = self.coordinator.up.as_mut();
        let Some(link) = up.and_then(|up| up.sessions.remove(&session)) else {
            return;
        };
        self.tally.add("old session closed for a new one");
        self.break_link(link, (SECOND / 10, SECOND / 10));
    }

    fn tidy_later(&mut self, build: BuildId) {
        let wait = self.dice.below("tidy", &[self.now], SECOND);
        self.after(wait, Happening::Tidy(self.coordinator.life, build));
    }

    /// Takes away what a build that has ended, or is deleted, does not need any more.
    pub(super) fn tidy(&mut self, life: u64, build: BuildId) {
        let up = self.coordinator.up.as_ref();
        let Some(up) = up.filter(|_| life == self.coordinator.life) else {
            return;
        };
        if !self.cache.is_up {
            self.after(SECOND, Happening::Tidy(life, build));
            return;
        }
        match scheduler::is_ended(up.brain.scheduler().state(), build) {
            None => {
                self.cache.forget(build);
                self.coordinator.logs.forget(build);
            }
            Some(_) => self.cache.forget_snapshots(build),
        }
    }
}
