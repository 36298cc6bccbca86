//! The coordinator: takes builds in, hands jobs out, and remembers.
//!
//! It decides nothing itself: the scheduler does, owned by one task (`dispatcher`), which journals what
//! was decided before anybody hears of it. Sessions translate between messages and events. It knows
//! nothing of how commands are run.

mod assign;
mod bells;
mod build_url;
mod cache_link;
mod clock;
mod directory;
mod disk;
mod dispatcher;
mod farm;
mod health;
mod identity;
mod journal;
mod logs;
mod members;
mod options;
pub mod record;
mod recovery;
mod retention;
mod run;
mod secrets;
mod session;
mod watch;

pub use crate::{
    directory::DirectoryError,
    dispatcher::DispatchError,
    identity::IdentityError,
    journal::{AppendError, Journal, OpenJournalError, Replayed, Storage},
    logs::files::new_part,
    members::OpenMembersError,
    options::{
        BATCH_TIME_LIMIT, BUILD_TIME_LIMIT, Options, OptionsError, QUEUE_TIME_LIMIT, RETENTION,
        RETENTION_BYTES,
    },
    recovery::OpenError,
    run::{Ready, RunError, run},
};

#[cfg(test)]
mod tests;
