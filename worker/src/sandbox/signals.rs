//! The signals of a command when it starts.

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Makes signals do what they do by default: what the keeper blocks, and what who started the worker ignores (`nohup`
/// does), would stay so for all that a command runs. For a forked child, before it becomes another program.
pub(super) fn reset() -> nix::Result<()> {
    for one in Signal::iterator() {
        #[expect(unsafe_code, reason = "what is ignored stays so over exec")]
        // SAFETY: no handler is installed, and a forked child may make this call.
        let _two_cannot_be_set = unsafe { signal(one, SigHandler::SigDfl) };
    }
    SigSet::empty().thread_set_mask()
}
