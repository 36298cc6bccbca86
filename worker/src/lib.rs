//! The worker: leases jobs, runs phases in sandboxes, and brings what they leave to the cache.
//!
//! [`run`] keeps one session with the coordinator over however many connections it takes.

mod directory;
mod layers;
mod options;
mod run;
pub mod sandbox;

pub use directory::DirectoryError;
pub use options::Options;
pub use run::{RunError, run};
