//! Which attempts may go on, and until when: the worker's side of the leases.
//!
//! Pure: the time is an argument, on a clock that goes on while the machine sleeps. A lease counts from
//! when the last message that the coordinator answered was *sent*, never from when the answer came, so
//! that a slow network makes it shorter and never longer. An attempt is to be killed
//! [`KILL_ALLOWANCE`] before its lease ends; the coordinator waits
//! [`LEASE_MARGIN`](protocol::lease::LEASE_MARGIN) longer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use protocol::{
    lease::{LEASE_RENEWAL, LEASE_TTL, LeaseId},
    time::Time,
};

/// How long before the end of a lease its attempt is killed: what ending a few thousand processes takes
/// on a busy machine.
pub const KILL_ALLOWANCE: Duration = Duration::from_secs(1);

/// How long before the end of a lease its keeper kills everything by itself, in case the worker is
/// stopped or was asleep: later than the worker does it, so that what is reported is the worker's to say.
pub const FENCE_ALLOWANCE: Duration = Duration::from_millis(500);

/// How many unanswered renewals are remembered: far more than a lease lives to see.
const SENT_MAX: usize = 64;

/// A renewal that was sent and not yet answered.
#[derive(Clone, Debug)]
struct Sent {
    sequence: u64,
    at: Time,
    leases: BTreeSet<LeaseId>,
}

/// The leases of one worker.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    /// When each lease ends.
    ends: BTreeMap<LeaseId, Time>,
    /// When the last message was sent that the coordinator has answered on this stream.
    answered: Time,
    /// Oldest first.
    sent: VecDeque<Sent>,
    sequence: u64,
    /// When the next renewal is due; `None`: there is no stream.
    renew_at: Option<Time>,
}

impl Leases {
    /// A new stream: everything held is named in its first message, which is sent now.
    pub fn joining(&mut self, now: Time) {
        self.sent.clear();
        self.answered = now;
        self.renew_at = None;
    }

    /// The coordinator has answered the first message: the leases of `kept` live on from when that was
    /// sent. Returns those that are lost.
    pub fn joined(&mut self, kept: &[LeaseId], now: Time) -> Vec<LeaseId> {
        let named: BTreeSet<_> = self.ends.keys().copied().collect();
        self.renew_at = Some(now);
        self.extend(&named, kept, self.answered)
    }

    /// The stream has ended. Leases go on to run out.
    pub fn disconnected(&mut self) {
        self.sent.clear();
        self.renew_at = None;
    }

    /// A new lease. It was granted after the coordinator had answered the last message that it answered,
    /// so it counts from when that was sent. Returns whether there is time to begin.
    pub fn granted(&mut self, lease: LeaseId, now: Time) -> bool {
        let end = self.answered + LEASE_TTL;
        let in_time = now + KILL_ALLOWANCE < end;
        if in_time {
            self.ends.insert(lease, end);
        }
        in_time
    }

    /// The next renewal if it is due: its sequence number and all leases held.
    pub fn renewal(&mut self, now: Time) -> Option<(u64, Vec<LeaseId>)> {
        if now < self.renew_at? {
            return None;
        }
        self.renew_at = Some(now + LEASE_RENEWAL);
        self.sequence += 1;
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        let leases: BTreeSet<_> = self.ends.keys().copied().collect();
        let listed = leases.iter().copied().collect();
        self.sent.push_back(Sent {
            sequence: self.sequence,
            at: now,
            leases,
        });
        Some((self.sequence, listed))
    }

    /// Whether a renewal of this number was sent on this stream and is not answered yet.
    pub fn awaits(&self, sequence: u64) -> bool {
        self.sent.iter().any(|sent| sent.sequence == sequence)
    }

    /// A renewal was answered. Returns the leases that were in it and are lost. An answer to what was
    /// never sent, or to what was answered before, changes nothing.
    pub fn renewed(&mut self, sequence: u64, kept: &[LeaseId]) -> Vec<LeaseId> {
        let Some(at) = self.sent.iter().position(|sent| sent.sequence == sequence) else {
            return Vec::new();
        };
        let Some(sent) = self.sent.drain(..=at).next_back() else {
            return Vec::new();
        };
        self.answered = self.answered.max(sent.at);
        self.extend(&sent.leases, kept, sent.at)
    }

    /// The leases whose attempts have to be killed now. They are not held any more.
    pub fn expired(&mut self, now: Time) -> Vec<LeaseId> {
        let over = |end: &Time| *end <= now + KILL_ALLOWANCE;
        let expired: Vec<_> = self
            .ends
            .iter()
            .filter(|(_, end)| over(end))
            .map(|(lease, _)| *lease)
            .collect();
        for lease in &expired {
            self.ends.remove(lease);
        }
        expired
    }

    /// Whether the lease is held: it has not run out, and was neither lost nor released.
    pub fn is_held(&self, lease: LeaseId) -> bool {
        self.ends.contains_key(&lease)
    }

    /// When a lease ends; `None`: it is not held.
    pub fn end(&self, lease: LeaseId) -> Option<Time> {
        self.ends.get(&lease).copied()
    }

    /// When a keeper kills everything by itself that runs under the lease: a worker that is well has done
    /// it before. `None`: the lease is not held.
    pub fn fence(&self, lease: LeaseId) -> Option<Time> {
        let before = u64::try_from(FENCE_ALLOWANCE.as_micros()).unwrap_or(0);
        let end = self.end(lease)?;
        Some(Time(end.0.saturating_sub(before)))
    }

    /// The lease is not needed any more. Doing it twice changes nothing.
    pub fn release(&mut self, lease: LeaseId) {
        self.ends.remove(&lease);
    }

    /// When [`renewal`](Self::renewal) or [`expired`](Self::expired) has something next; `None`: never,
    /// as it stands.
    pub fn deadline(&self) -> Option<Time> {
        let allowance = u64::try_from(KILL_ALLOWANCE.as_micros()).unwrap_or(0);
        let kill = self.ends.values().min();
        let kill = kill.map(|end| Time(end.0.saturating_sub(allowance)));
        [kill, self.renew_at].into_iter().flatten().min()
    }

    /// Lets those of `named` that are in `kept` live on from `from`, and gives up the others.
    fn extend(&mut self, named: &BTreeSet<LeaseId>, kept: &[LeaseId], from: Time) -> Vec<LeaseId> {
        let mut lost = Vec::new();
        for lease in named {
            if kept.contains(lease) {
                if let Some(end) = self.ends.get_mut(lease) {
                    *end = (*end).max(from + LEASE_TTL);
                }
            } else if self.ends.remove(lease).is_some() {
                lost.push(*lease);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    /// Leases on a stream that was joined at second 100, with `A` granted right then.
    fn with_one() -> Leases {
        let mut leases = Leases::default();
        leases.joining(at(100));
        assert_eq!(leases.joined(&[], at(100)), []);
        assert!(leases.granted(A, at(100)));
        leases
    }

    #[test]
    fn a_lease_counts_from_when_the_answered_renewal_was_sent() {
        let mut leases = with_one();
        assert_eq!(leases.renewal(at(105)), Some((1, vec![A])));
        // The answer takes nine seconds; the lease still counts from 105.
        assert_eq!(leases.expired(at(113)), []);
        assert_eq!(leases.renewed(1, &[A]), []);
        assert_eq!(leases.expired(at(118)), []);
        assert_eq!(leases.expired(at(119)), [A]);
        assert_eq!(leases.expired(at(119)), [], "an attempt is killed once");
    }

    #[test]
    fn an_unanswered_renewal_extends_nothing() {
        let mut leases = with_one();
        assert!(leases.renewal(at(105)).is_some());
        assert!(leases.renewal(at(110)).is_some());
        assert_eq!(leases.expired(at(113)), []);
        assert_eq!(leases.expired(at(114)), [A], "killed before its end at 115");
    }

    #[test]
    fn an_answer_counts_once_and_only_for_what_was_sent() {
        let mut leases = with_one();
        assert_eq!(leases.renewed(7, &[A]), [], "never sent");
        assert!(leases.renewal(at(105)).is_some());
        assert_eq!(leases.renewed(1, &[A]), []);
        assert_eq!(leases.renewed(1, &[]), [], "answered before");
        assert_eq!(leases.expired(at(118)), []);
    }

    #[test]
    fn what_a_renewal_named_and_its_answer_does_not_is_lost() {
        let mut leases = with_one();
        assert!(leases.renewal(at(105)).is_some());
        // Granted after the renewal was sent, so its absence from the answer means nothing.
        assert!(leases.granted(B, at(106)));
        assert_eq!(leases.renewed(1, &[]), [A]);
        assert_eq!(leases.renewal(at(110)), Some((2, vec![B])));
    }

    #[test]
    fn a_late_assignment_is_not_begun() {
        let mut leases = with_one();
        // Nothing has been answered since 100: what arrives at 114 may have been granted then.
        assert!(!leases.granted(B, at(114)));
        assert!(leases.renewal(at(114)).is_some());
        assert_eq!(leases.renewed(1, &[A]), []);
        assert!(leases.granted(B, at(115)));
        assert_eq!(leases.expired(at(128)), [A, B]);
    }

    #[test]
    fn a_lease_outlives_a_lost_stream_only_if_the_coordinator_says_so() {
        let mut leases = with_one();
        assert!(leases.granted(B, at(100)));
        leases.disconnected();
        assert_eq!(leases.end(A), Some(at(115)));
        assert_eq!(leases.deadline(), Some(at(114)), "it goes on to run out");
        leases.joining(at(110));
        assert_eq!(leases.joined(&[A], at(112)), [B]);
        assert_eq!(leases.expired(at(123)), []);
        assert_eq!(
            leases.expired(at(124)),
            [A],
            "counted from 110, not from 112"
        );
    }

    #[test]
    fn a_renewal_of_the_old_stream_cannot_be_answered_on_the_new_one() {
        let mut leases = with_one();
        assert!(leases.renewal(at(105)).is_some());
        leases.disconnected();
        leases.joining(at(106));
        assert_eq!(leases.joined(&[A], at(106)), []);
        assert_eq!(leases.renewed(1, &[]), []);
        assert_eq!(leases.renewal(at(106)), Some((2, vec![A])));
    }

    #[test]
    fn renewals_go_out_without_leases_too_and_at_their_pace() {
        let mut leases = with_one();
        leases.release(A);
        assert_eq!(leases.renewal(at(100)), Some((1, vec![])));
        assert_eq!(leases.renewal(at(104)), None);
        assert_eq!(leases.deadline(), Some(at(105)));
        assert_eq!(leases.renewal(at(105)), Some((2, vec![])));
    }

    #[test]
    fn a_machine_that_slept_finds_its_leases_over() {
        let mut leases = with_one();
        assert_eq!(leases.expired(at(100_000)), [A]);
    }
}
