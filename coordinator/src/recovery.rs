//! Opening what a coordinator keeps: taking the directory, and reading the journal.

use std::{path::Path, sync::Arc};

use protocol::report::Chain;
use scheduler::{Config, Limits, Scheduler};
use tracing::{error, info};

use crate::{
    clock,
    directory::{Directory, DirectoryError},
    identity::{self, IdentityError, OwnIdentity},
    journal::{Journal, OpenJournalError, Replayed},
    logs::Logs,
    members::{Members, OpenMembersError},
    options::Options,
    record::{self, ReplayError},
    secrets::Secrets,
};

/// Why what a coordinator keeps cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be had.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The farm's keys cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The list of members cannot be used.
    #[error(transparent)]
    Members(#[from] OpenMembersError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenJournalError),
}

/// What a coordinator keeps, opened.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The directory of all of it.
    pub directory: Directory,
    /// Who the coordinator is.
    pub identity: OwnIdentity,
    /// Who may join.
    pub members: Members,
    /// The secrets.
    pub secrets: Secrets,
    /// The logs.
    pub logs: Logs,
    /// The journal.
    pub journal: Journal,
    /// The scheduler, knowing what the journal says.
    pub scheduler: Scheduler,
}

/// Opens everything. Blocks.
///
/// # Errors
///
/// If anything cannot be used as it is; nothing is guessed.
pub(crate) fn open(options: &Options) -> Result<Kept, OpenError> {
    let directory = Directory::open(&options.directory)?;
    let identity = identity::open(&directory, &options.team)?;
    let members = Members::open(directory.join("members"))?;
    let secrets = Secrets::new(directory.join("secrets"), options.secrets_key());
    if let Err(error) = secrets.check() {
        // Builds without secrets need none.
        error!(error = %Chain(&error), "secrets cannot be used");
    }
    let logs = Logs::open(directory.join("logs"))?;
    let limits = Limits {
        queue: options.queue_time_limit,
        run: options.build_time_limit,
    };
    let config = Config {
        limits,
        batch_limit: options.batch_time_limit,
        shares: Arc::new(options.team_shares.clone()),
        ..Config::default()
    };
    let (journal, scheduler) = replay(&directory.join("journal"), config)?;
    Ok(Kept {
        directory,
        identity,
        members,
        secrets,
        logs,
        journal,
        scheduler,
    })
}

/// Folds the journal; decides nothing.
fn replay(path: &Path, config: Config) -> Result<(Journal, Scheduler), OpenJournalError> {
    let mut scheduler = Scheduler::new(config.clone());
    let mut facts = 0_u64;
    let begun = clock::now();
    let journal = Journal::open(path, &mut |replayed| {
        match replayed {
            Replayed::State(bytes) => {
                let ledger = record::decode_state(bytes)?;
                scheduler = Scheduler::restored(config.clone(), ledger);
            }
            Replayed::Record(line) => {
                scheduler.replay(&record::decode(line)?)?;
                facts += 1;
            }
        }
        Ok::<_, ReplayError>(())
    })?;
    let now = clock::both();
    scheduler.recovered(now);
    let elapsed = now.time.since(begun);
    info!(facts, elapsed_ms = elapsed.as_millis(), "journal read");
    Ok((journal, scheduler))
}
