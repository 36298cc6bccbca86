//! Assignments: what the scheduler says of an attempt, with the grant for the cache signed.

use protocol::{lease::LeaseId, message::work::Assignment, time::WallTime};
use scheduler::State;
use transport::GrantSigner;

use crate::build_url;

/// The assignment for a lease, which says where the page of its build is if that is known; `None` if it is over by
/// now.
pub(crate) fn assignment(
    state: &State,
    lease: LeaseId,
    now: WallTime,
    (signer, build_url): (&GrantSigner, Option<&str>),
) -> Option<Assignment> {
    let draft = scheduler::assignment(state, lease, now)?;
    let grant = signer.sign(&draft.grant);
    let mut assignment = draft.signed(grant);
    if let Some(pattern) = build_url {
        build_url::tell(&mut assignment, pattern);
    }
    Some(assignment)
}
