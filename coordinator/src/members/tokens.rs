//! Join tokens: made, redeemed, listed, revoked.

use std::{io, time::Duration};

use protocol::{
    access::Role, digest::Digest, message::client::TokenSummary, name::Team, time::WallTime,
};

use super::{Members, file::Token};

/// How many tokens may be usable at once: a token for each machine of the largest farm.
const TOKENS_MAX: usize = 10_000;
/// How long a token may be usable: a year. Whoever wants longer makes a new one.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How many digits of its hash name a token: enough that no two of a farm are alike.
const ID_DIGITS: usize = 12;

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
    #[error("failed to write the list of members")]
    Write {
        /// What the system says.
        #[from]
        source: io::Error,
    },
}

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeTokenError {
    /// No token is called that: it may have ended.
    #[error("no join token has the id `{id}`; `grange token list` lists them")]
    Unknown {
        /// What was named.
        id: String,
    },
    /// The disk refuses.
    #[error("failed to write the list of members")]
    Write {
        /// What the system says.
        #[from]
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
        self.change(|kept| {
            // Those that ended recently are kept for a while, so that their holders are told so.
            kept.tokens
                .retain(|token| now < token.end + TOKEN_LIFETIME_MAX);
            let usable = kept.tokens.iter().filter(|token| now < token.end);
            if TOKENS_MAX <= usable.count() {
                return Err(AddTokenError::TooMany);
            }
            if TOKENS_MAX <= kept.tokens.len() {
                kept.tokens.retain(|token| now < token.end);
            }
            kept.tokens.push(Token {
                hash: hash.to_string(),
                team,
                role,
                end: now + lifetime,
            });
            Ok(())
        })
    }

    /// Whom a token makes of its holder.
    ///
    /// # Errors
    ///
    /// If it is none, or none any more.
    pub(crate) fn redeem(&self, hash: Digest, now: WallTime) -> Result<(Team, Role), RedeemError> {
        let hash = hash.to_string();
        let kept = self.kept();
        let found = kept.tokens.iter().find(|token| token.hash == hash);
        let token = found.ok_or(RedeemError::Unknown)?;
        if token.end <= now {
            return Err(RedeemError::Ended);
        }
        Ok((token.team.clone(), token.role))
    }

    /// The tokens that can be used, the one that ends first before the others.
    pub(crate) fn tokens(&self, now: WallTime) -> Vec<TokenSummary> {
        let kept = self.kept();
        let usable = kept.tokens.iter().filter(|token| now < token.end);
        let mut tokens: Vec<_> = usable
            .map(|token| TokenSummary {
                id: id(&token.hash).to_owned(),
                team: token.team.clone(),
                role: token.role,
                end: token.end,
            })
            .collect();
        tokens.sort_by(|a, b| (a.end, &a.id).cmp(&(b.end, &b.id)));
        tokens
    }

    /// Lets a token be used no more: the one with this id, or with the secret of this hash. Who has joined
    /// with it stays. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If there is none, or the disk refuses.
    pub(crate) fn revoke_token(
        &self,
        named: &str,
        hash: Option<Digest>,
    ) -> Result<(), RevokeTokenError> {
        let hash = hash.map(|hash| hash.to_string());
        self.change(|kept| {
            let before = kept.tokens.len();
            kept.tokens
                .retain(|token| id(&token.hash) != named && Some(&token.hash) != hash.as_ref());
            if kept.tokens.len() == before {
                let id = named.to_owned();
                return Err(RevokeTokenError::Unknown { id });
            }
            Ok(())
        })
    }
}

/// What names the token with this hash. The hash of 128 random bits tells nothing of them.
fn id(hash: &str) -> &str {
    hash.get(..ID_DIGITS).unwrap_or(hash)
}
