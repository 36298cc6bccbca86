//! Who one is, and what one may do: roles, trust, grants.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    build::BuildId,
    canonical::{DecodeError, Reader, Writer},
    name::{NAME_BYTES_MAX, Namespace, Team},
    time::WallTime,
};

/// What a certificate lets its holder be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The service that schedules.
    Coordinator,
    /// The service that stores.
    Cache,
    /// A machine that runs phases. What it may read and write comes with each lease.
    Worker,
    /// Runs the whole farm.
    Admin,
    /// Submits builds of protected branches.
    Ci,
    /// Submits builds.
    Developer,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [
        Self::Coordinator,
        Self::Cache,
        Self::Worker,
        Self::Admin,
        Self::Ci,
        Self::Developer,
    ];

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Cache => "cache",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Ci => "ci",
            Self::Developer => "developer",
        }
    }

    /// Whether this role submits, follows and stops builds.
    pub const fn is_client(self) -> bool {
        matches!(self, Self::Admin | Self::Ci | Self::Developer)
    }

    /// How far what this role submits is trusted.
    pub const fn trust(self) -> Trust {
        match self {
            Self::Admin | Self::Ci => Trust::Protected,
            _ => Trust::Team,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no role.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is no role; there are coordinator, cache, worker, admin, ci and developer")]
pub struct ParseRoleError {
    /// The text.
    pub text: String,
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| ParseRoleError {
            text: text.to_owned(),
        })
    }
}

/// Who is at the other end of a connection, as its certificate says.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Identity {
    /// Whose work this is.
    pub team: Team,
    /// What it may do.
    pub role: Role,
    /// What it is called: a worker's name, a machine, a person.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of team {}", self.role, self.name, self.team)
    }
}

/// That all certificates of an identity which were issued up to some moment count no more.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Revocation {
    /// Whose.
    pub identity: Identity,
    /// The last moment of issue that it is about. Who joins again later gets a later certificate.
    pub at: WallTime,
}

impl Revocation {
    /// Whether it is about the certificate of `identity` that was issued at `issued`.
    pub fn covers(&self, identity: &Identity, issued: WallTime) -> bool {
        self.identity == *identity && issued <= self.at
    }
}

/// How far results may be trusted; the server that verified their maker says so. A reader sees only
/// what is trusted at least as far as its own build.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// From outside: a pull request of a fork.
    Untrusted,
    /// From a member of the team.
    Team,
    /// From a protected branch.
    Protected,
}

/// What a lease allows its worker at the cache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The build.
    pub build: BuildId,
    /// Whose build it is: chunks of this team may be read.
    pub team: Team,
    /// Where results and references may be read and written.
    pub namespace: Namespace,
    /// The trust of what is written, and the least trust of what may be read.
    pub trust: Trust,
    /// Which references may be written: keys that start with one of these, after the namespace.
    pub writes: Vec<String>,
    /// Which references may be read: keys that start with one of these, after the namespace.
    pub reads: Vec<String>,
    /// When the grant ends.
    pub end: WallTime,
}

/// How many key prefixes a grant may name. A phase needs three.
const PREFIXES_MAX: u64 = 16;
/// How long a prefix may be, in bytes: a name, an id and a word.
const PREFIX_BYTES_MAX: u64 = 1024;

impl Grant {
    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"ggra", 1);
        writer.bytes(&self.build.0.to_be_bytes());
        writer.bytes(self.team.as_str().as_bytes());
        writer.bytes(self.namespace.as_str().as_bytes());
        writer.byte(self.trust as u8);
        for prefixes in [&self.writes, &self.reads] {
            writer.number(prefixes.len() as u64);
            for prefix in prefixes {
                writer.bytes(prefix.as_bytes());
            }
        }
        writer.number(self.end.0);
        writer.finish()
    }

    /// Reads signed bytes. The signature is checked before.
    ///
    /// # Errors
    ///
    /// If the bytes are no grant.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, *b"ggra", 1)?;
        let build = reader.bytes("build", 16)?;
        let build = build.try_into().map_err(|_| reader.refuse("build"))?;
        let team = text(&mut reader, "team", NAME_BYTES_MAX as u64)?;
        let namespace = text(&mut reader, "namespace", NAME_BYTES_MAX as u64)?;
        let trust = match reader.byte("trust")? {
            0 => Trust::Untrusted,
            1 => Trust::Team,
            2 => Trust::Protected,
            _ => return Err(reader.refuse("trust")),
        };
        let writes = prefixes(&mut reader)?;
        let reads = prefixes(&mut reader)?;
        let end = WallTime(reader.number("end")?);
        let grant = Self {
            build: BuildId(u128::from_be_bytes(build)),
            team: team.parse().map_err(|_| reader.refuse("team"))?,
            namespace: namespace.parse().map_err(|_| reader.refuse("namespace"))?,
            trust,
            writes,
            reads,
            end,
        };
        reader.finish()?;
        Ok(grant)
    }
}

fn text(reader: &mut Reader<'_>, what: &'static str, limit: u64) -> Result<String, DecodeError> {
    let bytes = reader.bytes(what, limit)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.refuse(what))
}

fn prefixes(reader: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count = reader.count("number of key prefixes", PREFIXES_MAX)?;
    (0..count)
        .map(|_| text(reader, "key prefix", PREFIX_BYTES_MAX))
        .collect()
}

/// A grant with the coordinator's Ed25519 signature over its bytes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SignedGrant {
    /// [`Grant::encode`].
    pub grant: Vec<u8>,
    /// 64 bytes.
    pub signature: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_about_one_identity_and_what_was_issued_before() {
        let identity = |team: &str, role| Identity {
            team: team.parse().unwrap(),
            role,
            name: "w1".to_owned(),
        };
        let revoked = Revocation {
            identity: identity("red", Role::Worker),
            at: WallTime(1_000),
        };
        assert!(revoked.covers(&revoked.identity, WallTime(1_000)));
        assert!(!revoked.covers(&revoked.identity, WallTime(1_001)));
        assert!(!revoked.covers(&identity("blue", Role::Worker), WallTime(1)));
        assert!(!revoked.covers(&identity("red", Role::Admin), WallTime(1)));
    }

    #[test]
    fn a_grant_survives_its_bytes() {
        let grant = Grant {
            build: BuildId(7),
            team: "red".parse().unwrap(),
            namespace: "red".parse().unwrap(),
            trust: Trust::Team,
            writes: vec!["snapshot/7/".to_owned()],
            reads: vec!["dependency/app/".to_owned(), "source/7".to_owned()],
            end: WallTime(1_000),
        };
        assert_eq!(Grant::decode(&grant.encode()), Ok(grant));
    }
}
