//! The vault: one sealed file, replaced whole at each change, and its key in a file elsewhere.
//!
//! Neither is made before there is a secret. Who finds the one without the other is told so, and nothing
//! is overwritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    build::BuildId,
    canonical::DecodeError,
    name::{ProjectName, Team},
    secret::{SecretId, SecretSummary, SecretValue},
    time::WallTime,
};
use transport::{KeepError, OpenSealError, Seal, create_seal_key, draw_seal_key, load_seal_key};

use super::{
    contents::{Contents, NoRoom, Place},
    provider::{FindError, FoundSecret, SecretProvider, WantedVersion},
    resolve::Owner,
};
use crate::directory::{self, DirectoryError};

/// What the vault is called in its directory.
const FILE: &str = "vault";
/// What is sealed as the vault opens as nothing else.
const CONTEXT: &[u8] = b"grange vault 1";

/// Why the vault cannot be used. None of them says anything of what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// It is there, and its key is not: put the key back.
    #[error(
        "secrets are kept in `{}`, and their key is not in `{}`",
        vault.display(),
        key.display()
    )]
    NoKey {
        /// The vault.
        vault: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// The key cannot be read or made.
    #[error("failed to use the key of the secrets")]
    Key {
        /// Why.
        #[from]
        source: KeepError,
    },
    /// The key is another's, or the file is damaged: put back what belongs together.
    #[error("`{}` does not open with the key in `{}`", path.display(), key.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the cipher says.
        source: OpenSealError,
    },
    /// What is sealed is no vault: another version has written it.
    #[error("`{}` holds what this program does not understand", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// There is no place to keep it.
    #[error("failed to make a place for secrets")]
    Directory {
        /// Why.
        #[from]
        source: DirectoryError,
    },
    /// The disk refuses.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl VaultError {
    /// Whether it may go by itself, as a full disk does. All else somebody has to mend.
    pub(crate) const fn is_passing(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Directory { .. } => true,
            Self::NoKey { .. } | Self::Key { .. } | Self::Open { .. } | Self::Decode { .. } => {
                false
            }
        }
    }
}

/// Why a secret was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// There is none of this name.
    #[error("there is no such secret")]
    Unknown,
    /// There is no room.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The vault cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// A key that is in use, and where it is.
#[derive(Debug)]
pub(super) struct KeyInUse {
    /// Seals with it.
    pub(super) seal: Seal,
    /// Its file.
    pub(super) file: PathBuf,
}

impl KeyInUse {
    /// Opens what the file at `path` holds; `None`: there is none.
    pub(super) fn read(
        &self,
        path: &Path,
        context: &[u8],
    ) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, VaultError> {
        let sealed = match fs::read(path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(VaultError::Io {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let opened = self.seal.open(context, &sealed);
        let opened = opened.map_err(|source| VaultError::Open {
            path: path.to_owned(),
            key: self.file.clone(),
            source,
        })?;
        Ok(Some(opened))
    }

    /// Puts what is sealed in the place of the file at `path`.
    pub(super) fn write(
        &self,
        path: &Path,
        context: &[u8],
        plain: &[u8],
    ) -> Result<(), VaultError> {
        if let Some(parent) = path.parent() {
            directory::create(parent)?;
        }
        let sealed = self.seal.seal(context, plain);
        directory::replace(path, &[&sealed]).map_err(|source| VaultError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }
}

/// The farm's own secrets.
#[derive(Debug)]
pub(super) struct Vault {
    directory: PathBuf,
    key_file: PathBuf,
    /// `None`: nobody has needed it yet.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    /// `None`: there is none yet, and so nothing is kept.
    key: Option<Arc<KeyInUse>>,
    contents: Contents,
}

impl Vault {
    /// That in `directory`, with the key in `key_file`; neither needs to be there.
    pub(super) const fn new(directory: PathBuf, key_file: PathBuf) -> Self {
        Self {
            directory,
            key_file,
            opened: Mutex::new(None),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Opens it if it is there.
    pub(super) fn check(&self) -> Result<(), VaultError> {
        self.with(|_| Ok(()))
    }

    /// What seals the keys of builds; the key is made if there is none.
    pub(super) fn seal(&self) -> Result<Arc<KeyInUse>, VaultError> {
        self.with(|opened| self.key_of(opened))
    }

    /// Adds a version to a secret; gives its id.
    pub(super) fn set(
        &self,
        place: Place,
        value: SecretValue,
        (by, at): (String, WallTime),
    ) -> Result<String, ChangeError> {
        let id = random_id();
        let version = id.clone();
        self.change(|contents| Ok(contents.set(place, (version, value), (by, at))?))?;
        Ok(id)
    }

    /// Deletes a secret.
    pub(super) fn delete(&self, place: &Place) -> Result<(), ChangeError> {
        self.change(|contents| match contents.delete(place) {
            true => Ok(()),
            false => Err(ChangeError::Unknown),
        })
    }

    /// The secrets of a team, without their values.
    pub(super) fn list(
        &self,
        team: &Team,
        project: Option<&ProjectName>,
    ) -> Result<Vec<SecretSummary>, VaultError> {
        self.with(|opened| Ok(opened.contents.list(team, project)))
    }

    /// Changes what is kept; what is not durable is not seen.
    fn change(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        self.with(|opened| {
            let mut changed = opened.contents.clone();
            change(&mut changed)?;
            let key = self.key_of(opened)?;
            key.write(&self.path(), CONTEXT, &changed.encode())?;
            opened.contents = changed;
            Ok(())
        })
    }

    fn key_of(&self, opened: &mut Opened) -> Result<Arc<KeyInUse>, VaultError> {
        if let Some(key) = &opened.key {
            return Ok(Arc::clone(key));
        }
        let key = create_seal_key(&self.key_file)?;
        let key = Arc::new(KeyInUse {
            seal: Seal::new(&key),
            file: self.key_file.clone(),
        });
        Ok(Arc::clone(opened.key.insert(key)))
    }

    /// Does something with what is kept, which is opened for it if it was not yet.
    fn with<T, E: From<VaultError>>(
        &self,
        work: impl FnOnce(&mut Opened) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut opened = self.lock();
        let opened = match &mut *opened {
            Some(opened) => opened,
            none => none.insert(self.open()?),
        };
        work(opened)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        // What is in it is replaced whole.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Opened, VaultError> {
        let path = self.path();
        let Some(key) = load_seal_key(&self.key_file)? else {
            if path.exists() {
                return Err(VaultError::NoKey {
                    vault: path,
                    key: self.key_file.clone(),
                });
            }
            return Ok(Opened {
                key: None,
                contents: Contents::default(),
            });
        };
        let key = KeyInUse {
            seal: Seal::new(&key),
            file: self.key_file.clone(),
        };
        let contents = match key.read(&path, CONTEXT)? {
            None => Contents::default(),
            Some(bytes) => {
                Contents::decode(&bytes).map_err(|source| VaultError::Decode { path, source })?
            }
        };
        Ok(Opened {
            key: Some(Arc::new(key)),
            contents,
        })
    }
}

impl SecretProvider for Vault {
    fn find(
        &self,
        owner: Owner<'_>,
        id: &SecretId,
        version: WantedVersion<'_>,
    ) -> Result<FoundSecret, FindError> {
        let place = |project: Option<&ProjectName>| Place {
            team: owner.team.clone(),
            project: project.cloned(),
            id: id.clone(),
        };
        self.with(
            |opened| match opened.contents.find(&place(Some(owner.project)), version) {
                Err(FindError::Unknown) => opened.contents.find(&place(None), version),
                said => said,
            },
        )
    }
}

impl From<VaultError> for FindError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

/// An id that no other version has, in the form that AWS gives them.
fn random_id() -> String {
    let random = draw_seal_key();
    let (id, _) = random.expose().split_at(16);
    BuildId::from_random(id.try_into().expect("half of the bytes")).to_string()
}
