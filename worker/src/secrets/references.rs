//! References: what stands in the place of a secret where variables are kept between phases. Pure.
//!
//! No variable holds a zero byte, so what stands between two of them is a reference: the variable that the
//! secret was delivered as, its version, and which part of it. It is the same in every build with the same
//! version, and tells nothing of the value.

use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use protocol::secret::{DeliveredSecret, SecretValue};

/// What is before and behind a reference.
const EDGE: u8 = 0;

/// Finds values, and knows what refers to them.
pub(super) struct References {
    finder: AhoCorasick,
    /// By value that is found, what refers to it.
    names: Vec<String>,
}

impl fmt::Debug for References {
    /// Says what there is, and nothing of the values, which the automaton is made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("References").field(&self.names).finish()
    }
}

/// A reference to what the unit does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a variable refers to the secret `{name}`, which the build does not have")]
pub(crate) struct UnknownReference {
    /// What it says.
    name: String,
}

/// The values of a secret: the whole, then its parts.
fn values_of(secret: &DeliveredSecret) -> impl Iterator<Item = &SecretValue> {
    [&secret.value].into_iter().chain(&secret.parts)
}

fn name_of(secret: &DeliveredSecret, part: usize) -> String {
    format!("{}@{}#{part}", secret.variable, secret.version)
}

impl References {
    /// References to these secrets.
    pub(super) fn new(secrets: &[DeliveredSecret]) -> Result<Self, BuildError> {
        let all = secrets.iter().flat_map(|secret| {
            let values = values_of(secret).enumerate();
            values.map(|(part, value)| (name_of(secret, part), value.expose()))
        });
        let (names, values): (Vec<_>, Vec<_>) = all.unzip();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // The fastest kind takes a hundred times as much memory, for some variables per phase.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(values)?;
        Ok(Self { finder, names })
    }

    /// A value with references in the place of secrets.
    pub(super) fn hidden(&self, value: &[u8]) -> Vec<u8> {
        let mut hidden = Vec::with_capacity(value.len());
        let mut at = 0;
        for found in self.finder.find_iter(value) {
            hidden.extend_from_slice(&value[at..found.start()]);
            hidden.push(EDGE);
            hidden.extend_from_slice(self.names[found.pattern().as_usize()].as_bytes());
            hidden.push(EDGE);
            at = found.end();
        }
        hidden.extend_from_slice(&value[at..]);
        hidden
    }

    /// A value with secrets in the place of references.
    pub(super) fn revealed(
        &self,
        secrets: &[DeliveredSecret],
        value: &[u8],
    ) -> Result<Vec<u8>, UnknownReference> {
        let mut revealed = Vec::with_capacity(value.len());
        // Of pieces between edges, every second one is a reference.
        for (index, piece) in value.split(|&byte| byte == EDGE).enumerate() {
            if index % 2 == 0 {
                revealed.extend_from_slice(piece);
            } else {
                let secret = find(secrets, piece).ok_or_else(|| UnknownReference {
                    name: String::from_utf8_lossy(piece).into_owned(),
                })?;
                revealed.extend_from_slice(secret.expose());
            }
        }
        Ok(revealed)
    }
}

/// The value that a reference means.
fn find<'a>(secrets: &'a [DeliveredSecret], name: &[u8]) -> Option<&'a SecretValue> {
    secrets.iter().find_map(|secret| {
        let mut values = values_of(secret).enumerate();
        values.find_map(|(part, value)| {
            let is_meant = name_of(secret, part).as_bytes() == name;
            is_meant.then_some(value)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(variable: &str, values: &[&str]) -> DeliveredSecret {
        let mut values = values.iter().map(|value| {
            let value = SecretValue::new(value.as_bytes().to_vec());
            value.unwrap()
        });
        DeliveredSecret {
            variable: variable.to_owned(),
            version: "v1".to_owned(),
            value: values.next().unwrap(),
            parts: values.collect(),
        }
    }

    #[test]
    fn a_reference_stands_for_its_value_wherever_that_is() {
        let secrets = [
            secret("TOKEN", &["hunter2"]),
            secret("LONGER", &["hunter22", "inside"]),
        ];
        let references = References::new(&secrets).unwrap();
        for (value, hidden) in [
            ("", ""),
            ("hunter", "hunter"),
            ("hunter2", "\0TOKEN@v1#0\0"),
            (
                "https://u:hunter2@host/?inside",
                "https://u:\0TOKEN@v1#0\0@host/?\0LONGER@v1#1\0",
            ),
            ("hunter22hunter2", "\0LONGER@v1#0\0\0TOKEN@v1#0\0"),
        ] {
            let found = references.hidden(value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&found), hidden);
            let back = references.revealed(&secrets, &found).unwrap();
            assert_eq!(String::from_utf8_lossy(&back), value);
        }
    }

    #[test]
    fn a_reference_to_another_version_is_no_reference_to_this_one() {
        let secrets = [secret("TOKEN", &["hunter2"])];
        let references = References::new(&secrets).unwrap();
        for name in ["TOKEN@v2#0", "OTHER@v1#0", "TOKEN@v1#1", ""] {
            let value = format!("a\0{name}\0b");
            let refused = references.revealed(&secrets, value.as_bytes());
            let name = name.to_owned();
            assert_eq!(refused, Err(UnknownReference { name }));
        }
    }
}
