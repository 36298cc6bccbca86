//! Seals: what is kept encrypted, under a key that is kept elsewhere.
//!
//! AES-256 in GCM, with a nonce that is drawn for each seal; `docs/decisions/` says why. Here because this
//! is the crate that has the library.

use std::{fmt, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use protocol::secret::{SEAL_KEY_BYTES, SealKey};
use zeroize::Zeroizing;

use crate::files::{self, Existing, KeepError};

/// What the part of a key file is called.
const KEY_TAG: &str = "GRANGE SEAL KEY";
/// What a seal adds to the bytes that it seals: a nonce before them, and a tag behind.
pub const SEAL_BYTES: usize = NONCE_LEN + 16;

/// Seals and opens with one key.
pub struct Seal {
    key: RandomizedNonceKey,
}

/// Bytes that this key did not seal in this context: they are damaged, of another key, or not where they
/// belong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("what is sealed does not open with this key")]
pub struct OpenSealError;

impl Seal {
    /// Seals with `key`.
    ///
    /// # Panics
    ///
    /// Never: the key has the length that the cipher takes.
    pub fn new(key: &SealKey) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose());
        Self {
            key: key.expect("the key has 32 bytes"),
        }
    }

    /// Seals `plain`. It opens in the same `context` only, so that one thing cannot stand for another.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give, or the bytes are more than 64 GiB.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; NONCE_LEN];
        sealed.reserve_exact(plain.len() + SEAL_BYTES - NONCE_LEN);
        sealed.extend_from_slice(plain);
        let text = &mut sealed[NONCE_LEN..];
        let (nonce, tag) = self
            .key
            .seal_in_place_separate_tag(Aad::from(context), text)
            .expect("the system gives random bytes");
        sealed[..NONCE_LEN].copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed in `context`. What it gives is wiped when it is dropped.
    ///
    /// # Errors
    ///
    /// If this key did not seal it, or not in this context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenSealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(OpenSealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenSealError)?;
        let mut plain = Zeroizing::new(text.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(context), &mut plain)
            .map_err(|_| OpenSealError)?;
        let length = opened.len();
        plain.truncate(length);
        Ok(plain)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

/// A new key.
///
/// # Panics
///
/// If the system has no randomness to give.
pub fn draw_seal_key() -> SealKey {
    let mut bytes = Zeroizing::new([0; SEAL_KEY_BYTES]);
    rand::fill(bytes.as_mut_slice()).expect("the system gives random bytes");
    SealKey::new(*bytes)
}

/// The key in the file at `path`; `None`: there is no such file.
///
/// # Errors
///
/// If the file cannot be read, or holds no key.
pub fn load_seal_key(path: &Path) -> Result<Option<SealKey>, KeepError> {
    let Some([key]) = files::read(path, [KEY_TAG])? else {
        return Ok(None);
    };
    let key = Zeroizing::new(key);
    let key = <[u8; SEAL_KEY_BYTES]>::try_from(key.as_slice());
    let key = key.map_err(|_| KeepError::damaged(path, "its key has another length"))?;
    Ok(Some(SealKey::new(key)))
}

/// Makes a key and keeps it in the file at `path`, for its owner only, unless there is such a file; gives
/// the key that is there then.
///
/// # Errors
///
/// If the file cannot be read or written.
///
/// # Panics
///
/// If the system has no randomness to give.
pub fn create_seal_key(path: &Path) -> Result<SealKey, KeepError> {
    let key = draw_seal_key();
    files::write(path, &[(KEY_TAG, key.expose().to_vec())], Existing::Keep)?;
    Ok(load_seal_key(path)?.unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_in_its_context_and_only_as_it_was() {
        let seal = Seal::new(&draw_seal_key());
        let sealed = seal.seal(b"vault", b"hunter2");
        assert_eq!(sealed.len(), 7 + SEAL_BYTES);
        assert_eq!(seal.open(b"vault", &sealed).unwrap().as_slice(), b"hunter2");
        assert_eq!(seal.open(b"build", &sealed), Err(OpenSealError));
        let other = Seal::new(&draw_seal_key());
        assert_eq!(other.open(b"vault", &sealed), Err(OpenSealError));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(b"vault", &changed), Err(OpenSealError));
            assert_eq!(seal.open(b"vault", &sealed[..at]), Err(OpenSealError));
        }
    }

    #[test]
    fn no_two_seals_are_alike_and_neither_shows_what_is_sealed() {
        let seal = Seal::new(&draw_seal_key());
        let [one, two] = [(); 2].map(|()| seal.seal(b"", b"hunter2hunter2"));
        assert_ne!(one, two);
        assert!(!one.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("key");
        assert_eq!(load_seal_key(&path).unwrap(), None);
        let key = create_seal_key(&path).unwrap();
        assert_eq!(create_seal_key(&path).unwrap(), key);
        assert_eq!(load_seal_key(&path).unwrap(), Some(key));
        std::fs::write(&path, "no key").unwrap();
        assert!(load_seal_key(&path).is_err());
    }
}
