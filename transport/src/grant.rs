//! Grants: the coordinator signs what a lease allows at the cache, and the cache checks it without
//! asking anybody.

use std::{fmt, path::Path};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use protocol::{
    access::{Grant, SignedGrant},
    canonical::DecodeError,
    time::WallTime,
};

use crate::files::{self, Existing, KeepError};

/// The file in a grant signer's directory.
const FILE: &str = "grants.pem";
const KEY_TAG: &str = "PRIVATE KEY";
/// What an Ed25519 public key takes.
const PUBLIC_KEY_BYTES: usize = 32;

/// The coordinator's key for grants, Ed25519.
pub struct GrantSigner {
    key: Ed25519KeyPair,
}

impl GrantSigner {
    /// A new key, kept nowhere.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn create() -> Self {
        let key = Ed25519KeyPair::generate().expect("the system gives random bytes");
        Self { key }
    }

    /// The key that is kept in `dir`; a new one the first time.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or holds no key.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn load_or_create(dir: &Path) -> Result<Self, KeepError> {
        let path = dir.join(FILE);
        if let Some(signer) = Self::load(&path)? {
            return Ok(signer);
        }
        let signer = Self::create();
        let key = signer.key.to_pkcs8().expect("a key has an encoding");
        files::write(&path, &[(KEY_TAG, key.as_ref().to_vec())], Existing::Keep)?;
        // Whoever was first wins, so that two starts at once do not sign with two keys.
        Ok(Self::load(&path)?.unwrap_or(signer))
    }

    fn load(path: &Path) -> Result<Option<Self>, KeepError> {
        let Some([key]) = files::read(path, [KEY_TAG])? else {
            return Ok(None);
        };
        let key = Ed25519KeyPair::from_pkcs8(&key)
            .map_err(|_| KeepError::damaged(path, "its key is no Ed25519 key"))?;
        Ok(Some(Self { key }))
    }

    /// The key that checks the signatures, 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.key.public_key().as_ref().to_vec()
    }

    /// Signs a grant.
    pub fn sign(&self, grant: &Grant) -> SignedGrant {
        let grant = grant.encode();
        let signature = self.key.sign(&grant).as_ref().to_vec();
        SignedGrant { grant, signature }
    }
}

impl fmt::Debug for GrantSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantSigner").finish_non_exhaustive()
    }
}

/// The bytes are no key that checks grants: the credentials that they came with are damaged.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("key of grants has {found} bytes, an Ed25519 public key has {PUBLIC_KEY_BYTES}")]
pub struct GrantKeyError {
    /// How many there are.
    pub found: usize,
}

/// Why a grant does not count.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrantError {
    /// The coordinator of this farm has not signed this. Refuse it.
    #[error("grant is not signed by the coordinator of this farm")]
    Signature,
    /// It is signed, and is no grant: the coordinator is of another version.
    #[error("signed bytes are no grant")]
    Malformed {
        /// What is wrong with them.
        source: DecodeError,
    },
    /// It has ended. The worker gets a new one with the renewal of its lease.
    #[error("grant for build {build} ended {}s ago", since_end.as_secs())]
    Ended {
        /// For which build it was.
        build: protocol::build::BuildId,
        /// How long it has been over.
        since_end: std::time::Duration,
    },
}

/// Checks grants.
#[derive(Clone, Debug)]
pub struct GrantVerifier {
    key: UnparsedPublicKey<Vec<u8>>,
}

impl GrantVerifier {
    /// Checks what the holder of this public key has signed.
    ///
    /// # Errors
    ///
    /// If it is no Ed25519 public key.
    pub fn new(public_key: &[u8]) -> Result<Self, GrantKeyError> {
        if public_key.len() != PUBLIC_KEY_BYTES {
            return Err(GrantKeyError {
                found: public_key.len(),
            });
        }
        Ok(Self {
            key: UnparsedPublicKey::new(&ED25519, public_key.to_vec()),
        })
    }

    /// What `signed` allows at `now`.
    ///
    /// # Errors
    ///
    /// If it is not signed, no grant, or over.
    pub fn verify(&self, signed: &SignedGrant, now: WallTime) -> Result<Grant, GrantError> {
        self.key
            .verify(&signed.grant, &signed.signature)
            .map_err(|_| GrantError::Signature)?;
        let grant =
            Grant::decode(&signed.grant).map_err(|source| GrantError::Malformed { source })?;
        if grant.end <= now {
            return Err(GrantError::Ended {
                build: grant.build,
                since_end: now.since(grant.end),
            });
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{access::Trust, build::BuildId};

    use super::*;

    fn grant() -> Grant {
        Grant {
            build: BuildId(7),
            team: "red".parse().unwrap(),
            namespace: "red".parse().unwrap(),
            trust: Trust::Team,
            writes: vec!["snapshot/7/".to_owned()],
            reads: vec![],
            end: WallTime(1_000),
        }
    }

    #[test]
    fn a_grant_counts_until_it_ends() {
        let signer = GrantSigner::create();
        let verifier = GrantVerifier::new(&signer.public_key()).unwrap();
        let signed = signer.sign(&grant());
        assert_eq!(verifier.verify(&signed, WallTime(999)), Ok(grant()));
        assert!(matches!(
            verifier.verify(&signed, WallTime(1_000)),
            Err(GrantError::Ended {
                build: BuildId(7),
                ..
            })
        ));
    }

    #[test]
    fn a_grant_that_is_changed_or_signed_by_another_does_not_count() {
        let signer = GrantSigner::create();
        let verifier = GrantVerifier::new(&signer.public_key()).unwrap();
        let signed = signer.sign(&grant());
        for at in 0..signed.grant.len() {
            let mut changed = signed.clone();
            changed.grant[at] ^= 1;
            assert_eq!(
                verifier.verify(&changed, WallTime(0)),
                Err(GrantError::Signature)
            );
        }
        let stranger = GrantSigner::create().sign(&grant());
        assert_eq!(
            verifier.verify(&stranger, WallTime(0)),
            Err(GrantError::Signature)
        );
        let unsigned = SignedGrant {
            signature: vec![],
            ..signed
        };
        assert_eq!(
            verifier.verify(&unsigned, WallTime(0)),
            Err(GrantError::Signature)
        );
    }

    #[test]
    fn a_signer_stays_the_same_across_restarts() {
        let temporary = tempfile::tempdir().unwrap();
        let first = GrantSigner::load_or_create(temporary.path()).unwrap();
        let second = GrantSigner::load_or_create(temporary.path()).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_ne!(first.public_key(), GrantSigner::create().public_key());
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        assert_eq!(
            GrantVerifier::new(&[0; 31]).unwrap_err(),
            GrantKeyError { found: 31 }
        );
    }
}
