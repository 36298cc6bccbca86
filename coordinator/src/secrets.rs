//! Secrets: kept sealed, listed without their values, and given to the workers of builds that name them.
//!
//! The vault is the farm's own provider; others may follow it (see [`SecretProvider`]). All of it blocks:
//! it is called where blocking is allowed.

mod build_keys;
mod contents;
mod provider;
mod resolve;
mod vault;

use std::{io, path::PathBuf, sync::Arc};

use protocol::{
    build::BuildId,
    name::{ProjectName, Team},
    secret::{SecretDelivery, SecretRef, SecretSummary, SecretValue, SecretsReply},
    time::WallTime,
};

use self::{
    build_keys::{BuildKeys, Pin, Pins},
    provider::{FindError, SecretProvider},
    resolve::{Owner, check_room, delivered, first, refused},
    vault::Vault,
};
pub(crate) use self::{
    contents::Place,
    vault::{ChangeError, VaultError},
};

/// Who may have the secrets of a unit, and which it names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The build.
    pub(crate) build: BuildId,
    /// Whose it is.
    pub(crate) team: Team,
    /// Its project.
    pub(crate) project: ProjectName,
    /// The variables, and what they name.
    pub(crate) refs: Vec<SecretRef>,
}

/// All secrets of a farm.
#[derive(Debug)]
pub(crate) struct Secrets {
    vault: Arc<Vault>,
    /// Who is asked, in order; the vault is the first.
    providers: Vec<Arc<dyn SecretProvider>>,
    build_keys: BuildKeys,
}

impl Secrets {
    /// Those in `directory`, sealed with the key in `key_file`. Nothing is read or made before it is needed.
    pub(crate) fn new(directory: PathBuf, key_file: PathBuf) -> Self {
        let vault = Arc::new(Vault::new(directory.clone(), key_file));
        Self {
            providers: vec![Arc::clone(&vault) as Arc<dyn SecretProvider>],
            build_keys: BuildKeys::new(directory.join("builds")),
            vault,
        }
    }

    /// Whether what is kept can be opened, if anything is.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub(crate) fn check(&self) -> Result<(), VaultError> {
        self.vault.check()
    }

    /// Adds a version to a secret, and gives its id.
    ///
    /// # Errors
    ///
    /// If there is no room, or the vault cannot be used; then nothing is changed.
    pub(crate) fn set(
        &self,
        place: Place,
        value: SecretValue,
        (by, at): (String, WallTime),
    ) -> Result<String, ChangeError> {
        self.vault.set(place, value, (by, at))
    }

    /// The secrets of a team: those for one project, or all.
    ///
    /// # Errors
    ///
    /// If the vault cannot be used.
    pub(crate) fn list(
        &self,
        team: &Team,
        project: Option<&ProjectName>,
    ) -> Result<Vec<SecretSummary>, VaultError> {
        self.vault.list(team, project)
    }

    /// Deletes a secret, all versions.
    ///
    /// # Errors
    ///
    /// If it is not there, or the vault cannot be used; then nothing is changed.
    pub(crate) fn delete(&self, place: &Place) -> Result<(), ChangeError> {
        self.vault.delete(place)
    }

    /// What a worker of a unit is told. What a build was given first under a name, all its phases are given,
    /// whatever becomes of the secret meanwhile.
    ///
    /// # Errors
    ///
    /// If what is kept cannot be used: the farm's doing, not the build's.
    pub(crate) fn deliver(&self, wanted: &Wanted) -> Result<SecretsReply, VaultError> {
        let seal = self.vault.seal()?;
        let kept = self.build_keys.of(wanted.build, &seal)?;
        let mut pins = Pins::new();
        for reference in &wanted.refs {
            let pin = Pin::from(reference);
            if kept.pins.contains_key(&pin) || pins.contains_key(&pin) {
                continue;
            }
            match first(&self.providers, owner(wanted), reference) {
                Ok(found) => drop(pins.insert(pin, found)),
                Err(FindError::Vault(error)) => return Err(error),
                Err(error) => return Ok(refused(reference, &error)),
            }
        }
        let kept = match pins.is_empty() {
            true => kept,
            false => self.build_keys.pin(wanted.build, (kept, pins), &seal)?,
        };
        let mut secrets = Vec::with_capacity(wanted.refs.len());
        for reference in &wanted.refs {
            let found = kept.pins.get(&Pin::from(reference));
            let found = found.expect("all that is wanted has been found");
            match delivered(reference, found) {
                Ok(secret) => secrets.push(secret),
                Err(error) => return Ok(refused(reference, &error)),
            }
        }
        if let Err(context) = check_room(&secrets) {
            return Ok(SecretsReply::Unresolved(context));
        }
        Ok(SecretsReply::Delivered(SecretDelivery {
            key: kept.key,
            secrets,
        }))
    }

    /// Drops the key of a build: what was sealed with it can be read by nobody any more.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(crate) fn forget(&self, build: BuildId) -> io::Result<()> {
        self.build_keys.forget(build)
    }

    /// The builds whose keys are kept.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(crate) fn builds(&self) -> io::Result<Vec<BuildId>> {
        self.build_keys.builds()
    }
}

/// Whose secrets are wanted.
const fn owner(wanted: &Wanted) -> Owner<'_> {
    Owner {
        team: &wanted.team,
        project: &wanted.project,
    }
}

#[cfg(test)]
mod tests;
