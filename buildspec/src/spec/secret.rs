//! Variables whose values the file does not have, and how it names them.

use protocol::secret::SecretRef;
pub use protocol::secret::SecretStore;

use crate::diagnostic::Place;

/// A variable whose value is kept elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secret {
    /// Who keeps it.
    pub store: SecretStore,
    /// The name of the value there, as written.
    pub reference: String,
    /// The same in its parts; of a parameter, all of it is the id.
    pub name: SecretName,
    /// Where the file names it.
    pub place: Place,
}

impl Secret {
    /// The same as a worker's coordinator is told, for a variable.
    pub(crate) fn to_ref(&self, variable: &str) -> SecretRef {
        let name = self.name.clone();
        SecretRef {
            variable: variable.to_owned(),
            store: self.store,
            id: name.id,
            json_key: name.json_key,
            stage: name.version_stage,
            version: name.version_id,
        }
    }
}

/// A reference in its parts. Without stage and version it means the stage `AWSCURRENT`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecretName {
    /// The secret's name or ARN.
    pub id: String,
    /// Which value of the secret, which is a JSON object; `None`: the whole secret.
    pub json_key: Option<String>,
    /// Which version, by its stage.
    pub version_stage: Option<String>,
    /// Which version, by its id; never together with a stage.
    pub version_id: Option<String>,
}

/// How many parts an ARN of a secret has: `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`.
const ARN_PARTS: usize = 7;
/// How many parts may come after the id.
const PARTS_AFTER_ID_MAX: usize = 3;

/// Why a text names no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretNameError {
    /// Nothing comes before the first colon: name the secret.
    #[error("there is no id of a secret in it")]
    NoId,
    /// It starts like an ARN and is none: copy it again.
    #[error("an ARN of a secret has {ARN_PARTS} parts, and this has {parts}")]
    ShortArn {
        /// How many there are.
        parts: usize,
    },
    /// There are too many colons: leave the last parts out.
    #[error(
        "after the id come at most a JSON key, a stage and a version, and this has {parts} parts more"
    )]
    TooManyParts {
        /// How many come after the id.
        parts: usize,
    },
    /// It has a stage and a version: leave one of them out.
    #[error("it has both a stage and a version")]
    StageAndVersion,
}

impl SecretName {
    /// Reads `secret-id[:json-key[:version-stage[:version-id]]]`; parts may be empty.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn parse(text: &str) -> Result<Self, SecretNameError> {
        let pieces: Vec<&str> = text.trim().split(':').collect();
        let of_id = if pieces[0] == "arn" { ARN_PARTS } else { 1 };
        if pieces.len() < of_id {
            return Err(SecretNameError::ShortArn {
                parts: pieces.len(),
            });
        }
        let (id, rest) = pieces.split_at(of_id);
        if id.last().is_none_or(|last| last.trim().is_empty()) {
            return Err(SecretNameError::NoId);
        }
        if rest.len() > PARTS_AFTER_ID_MAX {
            return Err(SecretNameError::TooManyParts { parts: rest.len() });
        }
        let part = |at: usize| {
            let there = rest.get(at).filter(|part| !part.is_empty());
            there.map(|&part| part.to_owned())
        };
        let name = Self {
            id: id.join(":"),
            json_key: part(0),
            version_stage: part(1),
            version_id: part(2),
        };
        if name.version_stage.is_some() && name.version_id.is_some() {
            return Err(SecretNameError::StageAndVersion);
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<[&str; 4], SecretNameError>) {
        let shown = |part: Option<String>| part.unwrap_or_default();
        let found = SecretName::parse(text).map(|name| {
            [
                name.id,
                shown(name.json_key),
                shown(name.version_stage),
                shown(name.version_id),
            ]
        });
        assert_eq!(
            found,
            expected.map(|parts| parts.map(str::to_owned)),
            "{text}"
        );
    }

    #[test]
    fn a_reference_has_an_id_and_up_to_three_parts_that_may_be_empty() {
        check("s", Ok(["s", "", "", ""]));
        check("prod/s:key", Ok(["prod/s", "key", "", ""]));
        check("s:key:AWSPREVIOUS", Ok(["s", "key", "AWSPREVIOUS", ""]));
        check("s:::1b4e", Ok(["s", "", "", "1b4e"]));
        check("s:k:AWSCURRENT:", Ok(["s", "k", "AWSCURRENT", ""]));
    }

    #[test]
    fn the_colons_of_an_arn_belong_to_the_id() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:s-AbCdEf";
        check(arn, Ok([arn, "", "", ""]));
        check(&format!("{arn}:key::v1"), Ok([arn, "key", "", "v1"]));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        check("", Err(SecretNameError::NoId));
        check(":key", Err(SecretNameError::NoId));
        check("arn:aws:x", Err(SecretNameError::ShortArn { parts: 3 }));
        check("s:k:a:b:c", Err(SecretNameError::TooManyParts { parts: 4 }));
        check("s:k:stage:id", Err(SecretNameError::StageAndVersion));
    }
}
