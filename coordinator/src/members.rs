//! Who may join, and where the cache is: what the coordinator has to remember besides builds.
//!
//! A small file, `members`, replaced whole at each change. Of join tokens it holds only the hashes.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{access::Role, digest::Digest, name::Team, time::WallTime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::directory;

/// The version of the file.
const VERSION: u32 = 1;
/// How many tokens may be usable at once: a token for each machine of the largest farm.
const TOKENS_MAX: usize = 10_000;
/// How long a token may be usable: a year. Whoever wants longer makes a new one.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The members' file and what it says.
#[derive(Debug)]
pub(crate) struct Members {
    path: PathBuf,
    kept: Mutex<Kept>,
    cache: watch::Sender<Option<SocketAddr>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    cache: Option<SocketAddr>,
    tokens: Vec<Token>,
}

/// A join token, as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Token {
    hash: String,
    team: Team,
    role: Role,
    /// When it is usable last.
    end: WallTime,
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

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddTokenError {
    /// Nobody may become a coordinator: there is one.
    #[error("a token for role {role} cannot be made: a farm has one coordinator")]
    Role {
        /// The role.
        role: Role,
    },
    /// It would be usable for no time, or for too long.
    #[error(
        "a token's lifetime is more than zero and at most {TOKEN_LIFETIME_MAX:?}, not {found:?}"
    )]
    Lifetime {
        /// What was asked for.
        found: Duration,
    },
    /// There are enough. Wait until some end.
    #[error("there are {TOKENS_MAX} usable join tokens already, no more are made")]
    TooMany,
    /// The disk refuses.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a token buys nothing. The message tells nobody more than they know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum RedeemError {
    /// Nobody made it, or it is of another farm, or it ended long ago.
    #[error("the join token is not known here; `grange token create` makes one")]
    Unknown,
    /// Its time is over.
    #[error("the join token's time is over; `grange token create` makes a new one")]
    Ended,
}

impl Members {
    /// The members in the file at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// If it exists and cannot be understood.
    pub(crate) fn open(path: PathBuf) -> Result<Self, OpenMembersError> {
        let kept = match fs::read(&path) {
            Ok(bytes) => {
                // It may have been put there by a program that was killed before this was durable.
                directory::sync_parent(&path).map_err(|source| OpenMembersError::Read {
                    path: path.clone(),
                    source,
                })?;
                parse(&path, &bytes)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept {
                version: VERSION,
                cache: None,
                tokens: Vec::new(),
            },
            Err(source) => return Err(OpenMembersError::Read { path, source }),
        };
        Ok(Self {
            path,
            cache: watch::Sender::new(kept.cache),
            kept: Mutex::new(kept),
        })
    }

    /// Lets whoever shows the secret with this hash join, for some time. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If there can be no such token, or the disk refuses.
    pub(crate) fn add_token(
        &self,
        hash: Digest,
        (team, role): (Team, Role),
        lifetime: Duration,
        now: WallTime,
    ) -> Result<(), AddTokenError> {
        if role == Role::Coordinator {
            return Err(AddTokenError::Role { role });
        }
        if lifetime.is_zero() || TOKEN_LIFETIME_MAX < lifetime {
            return Err(AddTokenError::Lifetime { found: lifetime });
        }
        let mut kept = self.lock();
        let mut changed = kept.clone();
        // Those that ended recently are kept for a while, so that their holders are told so.
        changed
            .tokens
            .retain(|token| now < token.end + TOKEN_LIFETIME_MAX);
        let usable = changed.tokens.iter().filter(|token| now < token.end);
        if TOKENS_MAX <= usable.count() {
            return Err(AddTokenError::TooMany);
        }
        if TOKENS_MAX <= changed.tokens.len() {
            changed.tokens.retain(|token| now < token.end);
        }
        changed.tokens.push(Token {
            hash: hash.to_string(),
            team,
            role,
            end: now + lifetime,
        });
        self.write(&changed)
            .map_err(|source| AddTokenError::Write {
                path: self.path.clone(),
                source,
            })?;
        *kept = changed;
        Ok(())
    }

    /// Whom a token makes of its holder.
    ///
    /// # Errors
    ///
    /// If it is none, or none any more.
    pub(crate) fn redeem(&self, hash: Digest, now: WallTime) -> Result<(Team, Role), RedeemError> {
        let hash = hash.to_string();
        let kept = self.lock();
        let found = kept.tokens.iter().find(|token| token.hash == hash);
        let token = found.ok_or(RedeemError::Unknown)?;
        if token.end <= now {
            return Err(RedeemError::Ended);
        }
        Ok((token.team.clone(), token.role))
    }

    /// The teams that members may have joined for, in order.
    pub(crate) fn teams(&self) -> BTreeSet<Team> {
        let kept = self.lock();
        kept.tokens.iter().map(|token| token.team.clone()).collect()
    }

    /// Remembers where the cache is, and tells all who follow it; whether that is new. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If the disk refuses; then nobody is told.
    pub(crate) fn set_cache(&self, address: SocketAddr) -> io::Result<bool> {
        let mut kept = self.lock();
        if kept.cache != Some(address) {
            let changed = Kept {
                cache: Some(address),
                ..kept.clone()
            };
            self.write(&changed)?;
            *kept = changed;
        }
        Ok(self.cache.send_if_modified(|known| {
            let changed = *known != Some(address);
            *known = Some(address);
            changed
        }))
    }

    /// Where the cache is, now and later; `None`: none has ever announced itself.
    pub(crate) fn cache(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.cache.subscribe()
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(kept)?;
        text.push(b'\n');
        directory::replace(&self.path, &text)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // It is replaced whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(path: &std::path::Path, bytes: &[u8]) -> Result<Kept, OpenMembersError> {
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
    serde_json::from_slice(bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn red() -> (Team, Role) {
        ("red".parse().unwrap(), Role::Worker)
    }

    #[test]
    fn a_token_buys_its_role_until_it_ends_also_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("members");
        let members = Members::open(path.clone()).unwrap();
        let hash = Digest::of(b"secret");
        members.add_token(hash, red(), HOUR, NOW).unwrap();
        for members in [members, Members::open(path.clone()).unwrap()] {
            assert_eq!(members.redeem(hash, NOW), Ok(red()));
            assert_eq!(members.redeem(hash, NOW), Ok(red()), "more than once");
            assert_eq!(members.redeem(hash, NOW + HOUR), Err(RedeemError::Ended));
            let other = Digest::of(b"guess");
            assert_eq!(members.redeem(other, NOW), Err(RedeemError::Unknown));
        }
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn tokens_that_make_no_sense_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let members = Members::open(home.path().join("members")).unwrap();
        let hash = Digest::of(b"secret");
        let add = |role, lifetime| {
            let whom = ("red".parse().unwrap(), role);
            members.add_token(hash, whom, lifetime, NOW).unwrap_err()
        };
        assert!(matches!(
            add(Role::Coordinator, HOUR),
            AddTokenError::Role { .. }
        ));
        for lifetime in [Duration::ZERO, Duration::MAX] {
            let error = add(Role::Worker, lifetime);
            assert!(matches!(error, AddTokenError::Lifetime { .. }));
        }
    }

    #[test]
    fn where_the_cache_is_survives_a_restart_and_followers_hear_of_a_change_only() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("members");
        let members = Members::open(path.clone()).unwrap();
        let address = "10.0.0.1:7000".parse().unwrap();
        let mut cache = members.cache();
        assert_eq!(*cache.borrow_and_update(), None);
        assert!(members.set_cache(address).unwrap());
        assert!(cache.has_changed().unwrap());
        assert_eq!(*cache.borrow_and_update(), Some(address));
        assert!(!members.set_cache(address).unwrap());
        assert!(!cache.has_changed().unwrap());
        let again = Members::open(path).unwrap();
        assert_eq!(*again.cache().borrow(), Some(address));
    }

    #[test]
    fn a_file_that_is_newer_or_damaged_stops_the_start_by_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("members");
        fs::write(&path, "{\"version\": 4, \"else\": 1}").unwrap();
        let message = Members::open(path.clone()).unwrap_err().to_string();
        assert!(message.contains("version 4") && message.contains("up to 1"));
        fs::write(&path, "{\"version\": 1, \"cac").unwrap();
        let message = Members::open(path.clone()).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}
