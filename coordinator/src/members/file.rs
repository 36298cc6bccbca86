//! The file `members`: what stands in it, and how it is read and written.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use protocol::{
    access::{Identity, Revocation, Role},
    name::Team,
    time::WallTime,
};
use serde::{Deserialize, Serialize};

use crate::directory;

/// The version of the file. Version 1 knew tokens and the cache only.
pub(super) const VERSION: u32 = 2;

/// What the file says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    version: u32,
    /// Where the cache is.
    pub cache: Option<SocketAddr>,
    /// The join tokens.
    pub tokens: Vec<Token>,
    /// Who has joined.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Whose certificates count no more.
    #[serde(default)]
    pub revoked: Vec<Revocation>,
}

/// A join token, as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub hash: String,
    pub team: Team,
    pub role: Role,
    /// When it is usable last.
    pub end: WallTime,
}

/// Somebody who has joined, as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub identity: Identity,
    /// When it got its first certificate.
    pub joined: WallTime,
    /// When its last certificate ends.
    pub end: WallTime,
    /// Whether it has come with its certificate. A name whose holder never did can be asked for again.
    pub came: bool,
}

impl Kept {
    /// What a farm without members says.
    const fn empty() -> Self {
        Self {
            version: VERSION,
            cache: None,
            tokens: Vec::new(),
            members: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// What the file at `path` says, which need not exist. It is durable when this returns.
    pub(super) fn read(path: &Path) -> Result<Self, OpenMembersError> {
        let failed = |source| OpenMembersError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty()),
            Err(source) => return Err(failed(source)),
        };
        // It may have been put there by a program that was killed before that was durable.
        directory::sync_parent(path).map_err(failed)?;
        parse(path, &bytes)
    }

    /// Puts this in place of the file at `path`, durably.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        directory::replace(path, &[&text])
    }
}

/// Why the members' file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenMembersError {
    /// It cannot be read: look at its owner and the disk.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is damaged, or of a newer version. Put back a copy, or move it away: then nobody new can join
    /// before a new token is made, and the cache has to announce itself again.
    #[error(
        "`{}` is no list of members of version {VERSION} or older; put back a copy, or move it away and make \
         new join tokens",
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A newer program has written it. Use that one.
    #[error("`{}` is of version {found}; this program knows versions up to {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Kept, OpenMembersError> {
    /// What every version says.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let failed = |source| OpenMembersError::Parse {
        path: path.to_owned(),
        source,
    };
    let found = serde_json::from_slice::<Versioned>(bytes)
        .map_err(failed)?
        .version;
    if VERSION < found {
        let path = path.to_owned();
        return Err(OpenMembersError::Newer { path, found });
    }
    let kept: Kept = serde_json::from_slice(bytes).map_err(failed)?;
    Ok(Kept {
        version: VERSION,
        ..kept
    })
}
