//! Secrets: values that are only where they are needed, and how they are named.
//!
//! A value has no place in what is kept or shown: [`SecretValue`] prints as nothing, is wiped when it is
//! dropped, and can be encoded in messages only, not in text like that of the journal. What is kept and
//! shown instead is its name and its version.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{build::PhaseContext, name::ProjectName, time::WallTime};

/// The shortest secret, in bytes: whoever masked a shorter one would mask half of every log.
pub const SECRET_BYTES_MIN: usize = 4;
/// The longest secret, in bytes: what AWS Secrets Manager takes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long the name of a secret may be, in bytes: what AWS Secrets Manager takes.
pub const SECRET_ID_BYTES_MAX: usize = 512;
/// How long the whole of what names a secret, or a part of one, may be, in bytes: an ARN of the longest name, a
/// JSON key, a stage and a version.
pub const SECRET_REFERENCE_BYTES_MAX: usize = 2048;
/// How many secrets one unit may be given: each is looked for in every byte of its log.
pub const SECRETS_OF_UNIT_MAX: usize = 100;
/// How many bytes the secrets of one unit may have together: a worker looks for some thirty forms of each, and
/// keeps all of them in memory for that.
pub const SECRETS_OF_UNIT_BYTES_MAX: usize = 128 * 1024;

/// What stands in the place of a value wherever one would be printed.
const REDACTED: &str = "[redacted]";

/// The value of a secret.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretValue(Vec<u8>);

/// Why bytes are no secret. None of them repeats the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretValueError {
    /// It is shorter than [`SECRET_BYTES_MIN`]: choose a longer one.
    #[error(
        "a secret has at least {SECRET_BYTES_MIN} bytes: a shorter one cannot be told from other output"
    )]
    TooShort,
    /// It is longer than [`SECRET_BYTES_MAX`]: keep it elsewhere, and a key to it here.
    #[error("a secret has at most {SECRET_BYTES_MAX} bytes, and this has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a zero byte, which no variable can: encode it first, as with base64.
    #[error("a secret holds no zero byte, as no variable can")]
    Zero,
}

impl SecretValue {
    /// Takes bytes as a secret; the bytes are wiped if they are none.
    ///
    /// # Errors
    ///
    /// If they are too few or too many, or no variable can have them.
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, SecretValueError> {
        let error = match bytes.len() {
            0..SECRET_BYTES_MIN => SecretValueError::TooShort,
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX if bytes.contains(&0) => SecretValueError::Zero,
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => return Ok(Self(bytes)),
            length => SecretValueError::TooLong { bytes: length },
        };
        bytes.zeroize();
        Err(error)
    }

    /// The value itself, for whoever has a use for it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretValue {
    /// For messages: what people can read is refused.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Err(ser::Error::custom("a secret is not written as text"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::deserialize(deserializer)?;
        Self::new(bytes).map_err(de::Error::custom)
    }
}

/// How many bytes a key has that seals what is kept.
pub const SEAL_KEY_BYTES: usize = 32;

/// A key that seals what is kept: of the vault, or of one build.
#[derive(Clone, Eq, PartialEq)]
pub struct SealKey(Zeroizing<[u8; SEAL_KEY_BYTES]>);

impl SealKey {
    /// The key of these bytes, which somebody drew at random.
    pub fn new(bytes: [u8; SEAL_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the cipher.
    pub fn expose(&self) -> &[u8; SEAL_KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SealKey {
    /// For messages: what people can read is refused.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Err(ser::Error::custom("a key is not written as text"));
        }
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SealKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Zeroizing::new(Vec::<u8>::deserialize(deserializer)?);
        let bytes = <[u8; SEAL_KEY_BYTES]>::try_from(bytes.as_slice());
        bytes.map(Self::new).map_err(de::Error::custom)
    }
}

/// What a secret is called within its team or project: 1 to 512 letters, digits and `/_+=.@-`, which is
/// what AWS Secrets Manager and Parameter Store take.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretId(String);

/// Why a text does not name a secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretIdError {
    /// There is nothing, or more than [`SECRET_ID_BYTES_MAX`].
    #[error("the name of a secret has 1 to {SECRET_ID_BYTES_MAX} bytes, and this has {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// It holds something outside the alphabet.
    #[error("the name of a secret holds letters, digits and `/_+=.@-`, and this holds `{found}`")]
    Character {
        /// The first offender.
        found: char,
    },
}

impl SecretId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretId {
    type Err = SecretIdError;

    fn from_str(text: &str) -> Result<Self, SecretIdError> {
        let bytes = text.len();
        if bytes == 0 || SECRET_ID_BYTES_MAX < bytes {
            return Err(SecretIdError::Length { bytes });
        }
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(*c);
        match text.chars().find(|c| !is_allowed(c)) {
            Some(found) => Err(SecretIdError::Character { found }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SecretId {
    type Error = SecretIdError;

    fn try_from(text: String) -> Result<Self, SecretIdError> {
        text.parse()
    }
}

impl From<SecretId> for String {
    fn from(id: SecretId) -> Self {
        id.0
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the newest version of a secret is called, and the one before it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SecretStage {
    /// The newest.
    AwsCurrent,
    /// The one before.
    AwsPrevious,
}

impl SecretStage {
    /// The stage's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsCurrent => "AWSCURRENT",
            Self::AwsPrevious => "AWSPREVIOUS",
        }
    }
}

/// A secret, without its values.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SecretSummary {
    /// Its name.
    pub id: SecretId,
    /// The project that it is for; `None`: all of the team's.
    pub project: Option<ProjectName>,
    /// Its versions, the newest first.
    pub versions: Vec<SecretVersion>,
}

/// A version of a secret, without its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SecretVersion {
    /// Its id.
    pub id: String,
    /// Its stage, if it has one.
    pub stage: Option<SecretStage>,
    /// When it was set.
    pub set: WallTime,
    /// Who set it.
    pub by: String,
}

/// Which section of a buildspec names a secret: that decides what is said when it is not there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SecretStore {
    /// `env.parameter-store`.
    ParameterStore,
    /// `env.secrets-manager`.
    SecretsManager,
}

impl SecretStore {
    /// The key in `env`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::ParameterStore => "parameter-store",
            Self::SecretsManager => "secrets-manager",
        }
    }
}

/// A variable whose value is a secret, or a part of one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SecretRef {
    /// The variable.
    pub variable: String,
    /// Where the buildspec says that the value is.
    pub store: SecretStore,
    /// The secret's name or ARN.
    pub id: String,
    /// Which value of the secret, which is a JSON object; `None`: the whole secret.
    #[serde(default)]
    pub json_key: Option<String>,
    /// Which version, by its stage.
    #[serde(default)]
    pub stage: Option<String>,
    /// Which version, by its id. Without stage and version the newest is meant.
    #[serde(default)]
    pub version: Option<String>,
}

/// The answer to a worker that asks for the secrets of its attempt's unit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum SecretsReply {
    /// Here they are.
    Delivered(SecretDelivery),
    /// One of them is not there, or cannot be used: the phase has failed, for this reason.
    Unresolved(PhaseContext),
}

/// The secrets of a unit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SecretDelivery {
    /// The build's key, which seals what is stored of it.
    pub key: SealKey,
    /// The variables, by name.
    pub secrets: Vec<DeliveredSecret>,
}

/// A variable and the secret that is its value.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DeliveredSecret {
    /// The variable.
    pub variable: String,
    /// Which version of the secret it is.
    pub version: String,
    /// Its value.
    pub value: SecretValue,
    /// What in the value is a secret by itself: the texts of a JSON object.
    pub parts: Vec<SecretValue>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_value_is_neither_shown_nor_written_as_text() {
        let delivered = DeliveredSecret {
            variable: "TOKEN".to_owned(),
            version: "v1".to_owned(),
            value: value("hunter2"),
            parts: vec![value("part-of-it")],
        };
        let delivery = SecretsReply::Delivered(SecretDelivery {
            key: SealKey::new([0xab; SEAL_KEY_BYTES]),
            secrets: vec![delivered],
        });
        let shown = format!("{delivery:?} {delivery:#?}");
        assert!(shown.contains(REDACTED), "{shown}");
        for secret in ["hunter2", "104, 117", "part-of-it", "171", "0xab"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let bytes = codec::encode(&delivery).unwrap();
        assert_eq!(codec::decode::<SecretsReply>(&bytes).unwrap(), delivery);
        // What stands for every encoding of text: the formatter of `std` is one.
        struct AsText<'a>(&'a SecretValue);
        impl fmt::Display for AsText<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.serialize(f)
            }
        }
        let mut text = String::new();
        let written = fmt::write(&mut text, format_args!("{}", AsText(&value("hunter2"))));
        assert!(written.is_err() && text.is_empty(), "{text}");
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_being_repeated() {
        let new = |bytes: &[u8]| SecretValue::new(bytes.to_vec()).map(|_| ());
        assert_eq!(new(b"abc"), Err(SecretValueError::TooShort));
        assert_eq!(new(b"abcd"), Ok(()));
        assert_eq!(new(b"ab\0cd"), Err(SecretValueError::Zero));
        assert_eq!(new(&[b'x'; SECRET_BYTES_MAX]), Ok(()));
        let bytes = SECRET_BYTES_MAX + 1;
        let long = new(&vec![b'x'; bytes]);
        assert_eq!(long, Err(SecretValueError::TooLong { bytes }));
        for error in [SecretValueError::TooShort, SecretValueError::Zero] {
            assert!(!error.to_string().contains("abc"));
        }
        // From a message too: whoever sends it may be anybody.
        let short = codec::encode(&b"abc".to_vec()).unwrap();
        assert!(codec::decode::<SecretValue>(&short).is_err());
    }

    #[test]
    fn names_are_those_that_aws_takes() {
        for name in ["db", "/prod/db-1/password", "a_b+c=d.e@f"] {
            assert_eq!(name.parse::<SecretId>().unwrap().as_str(), name);
        }
        let refused = |text: &str| text.parse::<SecretId>().unwrap_err();
        assert_eq!(refused(""), SecretIdError::Length { bytes: 0 });
        assert_eq!(refused("a:b"), SecretIdError::Character { found: ':' });
        let long = "x".repeat(513);
        assert_eq!(refused(&long), SecretIdError::Length { bytes: 513 });
    }
}
