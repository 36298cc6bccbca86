//! Who may join, who has, and where the cache is: what the coordinator has to remember besides builds.
//!
//! A small file, `members`, replaced whole at each change. Of join tokens it holds only the hashes. Who
//! only looks never waits for the disk: what changes is written first, and shown when it is durable.

mod file;
mod register;
mod tokens;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{access::Revocation, name::Team};
use tokio::sync::watch;

use self::file::Kept;
pub use self::file::OpenMembersError;
pub(crate) use self::{
    register::{RegisterError, RevokeMemberError},
    tokens::{AddTokenError, RevokeTokenError},
};

/// The members' file and what it says.
#[derive(Debug)]
pub(crate) struct Members {
    path: PathBuf,
    /// Held by who changes something, while it is written.
    changing: Mutex<()>,
    /// What is durable.
    kept: Mutex<Arc<Kept>>,
    cache: watch::Sender<Option<SocketAddr>>,
    revoked: watch::Sender<Arc<Vec<Revocation>>>,
}

impl Members {
    /// The members in the file at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// If it exists and cannot be understood.
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenMembersError> {
        let kept = Kept::read(&path)?;
        Ok(Self {
            path,
            changing: Mutex::default(),
            cache: watch::Sender::new(kept.cache),
            revoked: watch::Sender::new(Arc::new(kept.revoked.clone())),
            kept: Mutex::new(Arc::new(kept)),
        })
    }

    /// The teams that members may have joined for, in order.
    pub(crate) fn teams(&self) -> BTreeSet<Team> {
        let kept = self.kept();
        let tokens = kept.tokens.iter().map(|token| &token.team);
        let members = kept.members.iter().map(|member| &member.identity.team);
        tokens.chain(members).cloned().collect()
    }

    /// Remembers where the cache is, and tells all who follow it; whether that is new. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If the disk refuses; then nobody is told.
    pub(crate) fn set_cache(&self, address: SocketAddr) -> io::Result<bool> {
        self.change(|kept| {
            kept.cache = Some(address);
            Ok::<_, io::Error>(())
        })?;
        Ok(self.cache.send_if_modified(|known| {
            let changed = *known != Some(address);
            *known = Some(address);
            changed
        }))
    }

    /// Where the cache is, now and later; `None`: none has ever announced itself.
    pub(crate) fn cache(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.cache.subscribe()
    }

    /// What is revoked, now and later.
    pub(crate) fn revoked(&self) -> watch::Receiver<Arc<Vec<Revocation>>> {
        self.revoked.subscribe()
    }

    /// What is durable now.
    fn kept(&self) -> Arc<Kept> {
        // It is replaced whole.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&kept)
    }

    /// Changes something and waits for the disk. What changes nothing writes nothing.
    fn change<T, E: From<io::Error>>(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<T, E>,
    ) -> Result<T, E> {
        // Nothing is kept under this lock.
        let changing = self.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        let before = self.kept();
        let mut kept = Kept::clone(&before);
        let changed = change(&mut kept)?;
        if kept == *before {
            return Ok(changed);
        }
        kept.write(&self.path)?;
        let kept = Arc::new(kept);
        let mut shown = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = Arc::clone(&kept);
        drop(shown);
        if kept.revoked != before.revoked {
            self.revoked.send_replace(Arc::new(kept.revoked.clone()));
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests;
