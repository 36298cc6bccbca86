//! The seam for whoever else may have secrets: AWS itself, or a vault of another kind.

use std::fmt;

use protocol::secret::{SecretId, SecretValue};

use super::{resolve::Owner, vault::VaultError};

/// Who has secrets. Blocks while it looks.
///
/// Whoever adds one puts it behind the farm's own vault in the list of providers: the first that knows a
/// secret of a name is the one that counts.
pub(crate) trait SecretProvider: fmt::Debug + Send + Sync {
    /// The version that is wanted of the secret `id`, as far as `owner` may have it: one of its project
    /// goes before one of its team.
    ///
    /// # Errors
    ///
    /// If there is no such secret or version, or nobody can say.
    fn find(
        &self,
        owner: Owner<'_>,
        id: &SecretId,
        version: WantedVersion<'_>,
    ) -> Result<FoundSecret, FindError>;
}

/// Which version is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WantedVersion<'a> {
    /// That which has this stage.
    Stage(&'a str),
    /// That which has this id.
    Id(&'a str),
}

/// A secret that was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoundSecret {
    /// The id of the version.
    pub(crate) version: String,
    /// Its value.
    pub(crate) value: SecretValue,
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// Nobody has one of this name: set it, or correct the buildspec.
    #[error("there is no secret of this name")]
    Unknown,
    /// There is one, without such a stage.
    #[error("the secret has no version with the stage `{stage}`")]
    NoStage {
        /// The stage.
        stage: String,
    },
    /// There is one, without such a version.
    #[error("the secret has no version `{version}`")]
    NoVersion {
        /// The version.
        version: String,
    },
    /// A key is asked for, and the secret is no JSON object.
    #[error("the secret is no JSON object, so it has no key `{key}`")]
    NoObject {
        /// The key.
        key: String,
    },
    /// It is an object without this key.
    #[error("the secret has no key `{key}`")]
    NoKey {
        /// The key.
        key: String,
    },
    /// What is under the key cannot be a secret.
    #[error("what the secret has under the key `{key}` is none: {why}")]
    NoSecret {
        /// The key.
        key: String,
        /// Why.
        why: protocol::secret::SecretValueError,
    },
    /// What is kept cannot be used: the farm's owner has to mend it.
    #[error(transparent)]
    Vault(VaultError),
}
