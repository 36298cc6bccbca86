//! Names with rules: teams, namespaces, projects, workers.
//!
//! Names end up in keys, paths and certificates, so their alphabet is small: ASCII letters, digits,
//! `-`, `_` and `.`, starting with a letter or a digit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How long a name may be, in bytes. What CodeBuild allows for a project's name (API model: 2..150).
pub const NAME_BYTES_MAX: usize = 150;

/// Why a text is no name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("name is empty")]
    Empty,
    /// It is over [`NAME_BYTES_MAX`].
    #[error("name has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It holds something outside the alphabet, or starts with `-`, `_` or `.`.
    #[error(
        "name `{name}` holds `{found}`; letters, digits, `-`, `_` and `.` are allowed, \
         starting with a letter or a digit"
    )]
    Character {
        /// The name.
        name: String,
        /// The first offender.
        found: char,
    },
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    let offender = name.chars().enumerate().find(|&(at, c)| {
        let inner = at > 0 && matches!(c, '-' | '_' | '.');
        !(c.is_ascii_alphanumeric() || inner)
    });
    match offender {
        None => Ok(()),
        Some((_, found)) => Err(NameError::Character {
            name: name.to_owned(),
            found,
        }),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Who owns builds, quotas and a share of the farm.
    Team
}
name! {
    /// Whose results and references these are; the first part of every key at the cache.
    Namespace
}
name! {
    /// What builds of one repository have in common: their numbers, their dependency caches.
    ProjectName
}
name! {
    /// The name of a worker, unique in its farm.
    WorkerName
}

impl From<Team> for Namespace {
    /// The namespace that a team has from the start carries the team's name.
    fn from(team: Team) -> Self {
        Self(team.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        assert!("my-team.2_x".parse::<Team>().is_ok());
        assert_eq!("".parse::<Team>(), Err(NameError::Empty));
        assert!(matches!(
            "../etc".parse::<Team>(),
            Err(NameError::Character { found: '.', .. })
        ));
        assert!(matches!(
            "a/b".parse::<Namespace>(),
            Err(NameError::Character { found: '/', .. })
        ));
        assert!(matches!(
            "x".repeat(151).parse::<ProjectName>(),
            Err(NameError::TooLong { bytes: 151 })
        ));
    }
}
