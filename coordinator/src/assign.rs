//! Assignments: what the scheduler says of an attempt, with the grant for the cache signed.

use protocol::{lease::LeaseId, message::work::Assignment, time::WallTime};
use scheduler::State;
use transport::GrantSigner;

/// The assignment for a lease; `None` if it is over by now.
pub(crate) fn assignment(
    state: &State,
    lease: LeaseId,
    now: WallTime,
    signer: &GrantSigner,
) -> Option<Assignment> {
    let draft = scheduler::assignment(state, lease, now)?;
    let grant = signer.sign(&draft.grant);
    Some(draft.signed(grant))
}
