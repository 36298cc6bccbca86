//! Join tokens: what a newcomer needs to trust a farm, and to be trusted by it.

use std::{fmt, str::FromStr};

use aws_lc_rs::rand;
use protocol::digest::{Digest, hex};

/// What a token starts with. The number is the version of what follows.
const PREFIX: &str = "grange1-";
const FINGERPRINT_BYTES: usize = 32;
/// 128 random bits: nobody guesses them.
const SECRET_BYTES: usize = 16;
const DIGITS: usize = 2 * (FINGERPRINT_BYTES + SECRET_BYTES);

/// A join token: `grange1-` and 96 hex digits.
///
/// The first part lets the newcomer know the farm, the second lets the farm know the newcomer. The
/// coordinator keeps only the hash of the secret, with the role and the team that it buys.
#[derive(Clone, Eq, PartialEq)]
pub struct JoinToken {
    /// SHA-256 of the DER of the farm's authority.
    pub fingerprint: [u8; FINGERPRINT_BYTES],
    /// What only holders of the token know.
    pub secret: [u8; SECRET_BYTES],
}

impl JoinToken {
    /// A new token for the farm with this [`fingerprint`](crate::Authority::fingerprint).
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn new(fingerprint: [u8; FINGERPRINT_BYTES]) -> Self {
        let mut secret = [0; SECRET_BYTES];
        rand::fill(&mut secret).expect("the system gives random bytes");
        Self {
            fingerprint,
            secret,
        }
    }

    /// What the coordinator keeps of the secret.
    pub fn secret_hash(&self) -> Digest {
        Self::hash_of(&self.secret_text())
    }

    /// The [`secret_hash`](Self::secret_hash) of a secret that arrives as text, in
    /// [`Purpose::Enrol`](protocol::message::handshake::Purpose::Enrol).
    pub fn hash_of(secret_text: &str) -> Digest {
        Digest::of(secret_text.as_bytes())
    }

    /// The secret as it travels: lower-case hex.
    pub(crate) fn secret_text(&self) -> String {
        hex(&self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{}", hex(&self.fingerprint), hex(&self.secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("fingerprint", &hex(&self.fingerprint))
            .field("secret", &format_args!("[redacted]"))
            .finish()
    }
}

/// Why a text is no join token. None of them repeats the text: it may hold a secret.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseTokenError {
    /// It starts otherwise.
    #[error("join token does not start with `{PREFIX}`; `grange token create` makes one")]
    Prefix,
    /// It is too short or too long: part of it is missing.
    #[error("join token has {found} digits after `{PREFIX}`, not {DIGITS}: copy it whole")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// It holds something else than hex digits.
    #[error("join token holds `{found}`, which is no hex digit")]
    Digit {
        /// The first offender.
        found: char,
    },
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let digits = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(ParseTokenError::Prefix)?;
        if let Some(found) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(ParseTokenError::Digit { found });
        }
        if digits.len() != DIGITS {
            return Err(ParseTokenError::Length {
                found: digits.len(),
            });
        }
        let mut bytes = [0; FINGERPRINT_BYTES + SECRET_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = str::from_utf8(pair).expect("hex digits are ASCII");
            *byte = u8::from_str_radix(pair, 16).expect("two hex digits are a byte");
        }
        let (fingerprint, secret) = bytes.split_at(FINGERPRINT_BYTES);
        Ok(Self {
            fingerprint: fingerprint.try_into().expect("split there"),
            secret: secret.try_into().expect("what is left"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_no_two_are_alike() {
        let token = JoinToken::new([7; 32]);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token}\n").parse(), Ok(token.clone()));
        assert_ne!(JoinToken::new([7; 32]), token);
        assert_eq!(
            token.secret_hash(),
            JoinToken::hash_of(&token.secret_text())
        );
    }

    #[test]
    fn logs_do_not_show_the_secret() {
        let token = JoinToken::new([7; 32]);
        assert!(!format!("{token:?}").contains(&token.secret_text()));
    }

    #[test]
    fn mistakes_in_a_token_are_named_without_showing_it() {
        let text = JoinToken::new([7; 32]).to_string();
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<JoinToken>(), Err(expected));
        };
        check("", ParseTokenError::Prefix);
        check(&text[1..], ParseTokenError::Prefix);
        check(&text[..50], ParseTokenError::Length { found: 42 });
        check(&format!("{text}0"), ParseTokenError::Length { found: 97 });
        check(
            &text.replace("07", "0é"),
            ParseTokenError::Digit { found: 'é' },
        );
    }
}
