//! The worker: leases jobs, runs phases apart from each other, and brings home what they made.
//!
//! [`run()`] keeps one session with the coordinator over however many connections it takes.

pub mod archive;
mod attempt;
mod begin;
mod cache_link;
mod clock;
pub mod departure;
mod directory;
mod docker;
mod driver;
pub mod expand;
mod exports;
mod fault;
mod git;
mod ground;
mod layers;
pub mod leases;
mod link;
pub mod lock_files;
mod log;
mod options;
mod patterns;
mod phases;
mod places;
mod report;
mod restoring;
mod run;
mod runtimes;
pub mod sandbox;
mod scene;
mod secrets;
mod session;
mod site;
mod source_times;
mod spent;
mod terminals;
mod units;
mod word;

pub use directory::DirectoryError;
pub use options::{Options, Stop};
pub use run::{RunError, run};
