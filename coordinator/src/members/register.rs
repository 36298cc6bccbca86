//! The register: who has joined under which name, and whose certificates count no more.
//!
//! A worker's name is an identity that jobs and logs hang on, so nobody else can get a certificate with it
//! while one of its holder's counts. Who has lost its certificate comes back under the name when an admin
//! has revoked it, or when the certificate is over.

use std::{io, time::Duration};

use protocol::{
    access::{Identity, Revocation, Role},
    message::{cache::REVOCATIONS_MAX, client::MemberSummary},
    time::WallTime,
};

use super::{
    Members,
    file::{Kept, Member},
};

/// How many members are kept at most: the largest farm's machines and people many times over.
const MEMBERS_MAX: usize = 10_000;
/// How long a revocation is kept: longer than any certificate that it may be about counts.
pub(crate) const REVOCATION_KEPT: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// How much later than a revocation a new certificate for the same identity is issued: certificates say
/// whole seconds.
const AFTER_REVOCATION: Duration = Duration::from_secs(1);

/// Why somebody does not get a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    /// A worker is called that.
    #[error(
        "a worker of this farm is called `{name}` already; give this one another name with `--name`, or, if \
         that one is gone for good, let an admin run `grange member revoke {name}` first"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// The certificate was revoked.
    #[error("{identity} was revoked; join again with a new token")]
    Revoked {
        /// Whose.
        identity: Identity,
    },
    /// There are too many.
    #[error(
        "{MEMBERS_MAX} workers have joined, or {REVOCATIONS_MAX} certificates are revoked: no more are taken \
         before some are over"
    )]
    TooMany,
    /// The disk refuses.
    #[error("failed to write the list of members")]
    Write {
        /// What the system says.
        #[from]
        source: io::Error,
    },
}

/// Why a member was not revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeMemberError {
    /// Nobody is called that.
    #[error("no member is called `{named}`; `grange member list` lists them")]
    Unknown {
        /// What was named.
        named: String,
    },
    /// Several are.
    #[error("several members are called `{named}`: {}; name one of these", found.join(", "))]
    Ambiguous {
        /// What was named.
        named: String,
        /// In full.
        found: Vec<String>,
    },
    /// There are too many revocations.
    #[error("{REVOCATIONS_MAX} certificates are revoked, which is as many as there may be")]
    TooMany,
    /// The disk refuses.
    #[error("failed to write the list of members")]
    Write {
        /// What the system says.
        #[from]
        source: io::Error,
    },
}

impl Members {
    /// Takes in somebody who has bought a certificate of this lifetime with a token; gives the time that
    /// it is to be issued at. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If it is a worker whose name another has, or the disk refuses.
    pub(crate) fn join(
        &self,
        identity: &Identity,
        lifetime: Duration,
        now: WallTime,
    ) -> Result<WallTime, RegisterError> {
        self.change(|kept| {
            kept.forget(now);
            if identity.role == Role::Worker
                && let Some(at) = kept.worker(&identity.name)
            {
                let holder = &kept.members[at];
                let is_unused = !holder.came && holder.identity == *identity;
                if !is_unused {
                    let name = identity.name.clone();
                    return Err(RegisterError::Taken { name });
                }
                // Its certificate got lost on the way. Should somebody have it all the same, it counts no
                // more.
                kept.members.remove(at);
                kept.revoke(identity.clone(), now)
                    .ok_or(RegisterError::TooMany)?;
            }
            let issued = kept.issue_time(identity, now);
            kept.note(identity, (now, issued + lifetime))?;
            Ok(issued)
        })
    }

    /// Notes that somebody gets another certificate of this lifetime for the one, issued at `held`, that it
    /// comes with; gives the time that it is to be issued at. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If the certificate that it comes with was revoked, or the disk refuses.
    pub(crate) fn renew(
        &self,
        identity: &Identity,
        held: WallTime,
        (lifetime, now): (Duration, WallTime),
    ) -> Result<WallTime, RegisterError> {
        self.change(|kept| {
            kept.forget(now);
            kept.check(identity, held)?;
            let issued = kept.issue_time(identity, now);
            kept.note(identity, (now, issued + lifetime))?;
            kept.came(identity);
            Ok(issued)
        })
    }

    /// Notes that somebody has come with a certificate, issued at `held`, that ends at `end`. Waits for the
    /// disk, the first time.
    ///
    /// # Errors
    ///
    /// If it was revoked, or is a worker whose name another has, or the disk refuses.
    pub(crate) fn came(
        &self,
        identity: &Identity,
        held: WallTime,
        (end, now): (WallTime, WallTime),
    ) -> Result<(), RegisterError> {
        let known = self.kept();
        known.check(identity, held)?;
        let is_noted = |member: &Member| member.came && member.identity == *identity;
        if known.members.iter().any(is_noted) {
            return Ok(());
        }
        self.change(|kept| {
            kept.check(identity, held)?;
            let taken = kept.worker(&identity.name);
            let taken = taken.filter(|&at| kept.members[at].identity != *identity);
            if identity.role == Role::Worker && taken.is_some() {
                let name = identity.name.clone();
                return Err(RegisterError::Taken { name });
            }
            kept.note(identity, (now, end))?;
            kept.came(identity);
            Ok(())
        })
    }

    /// Who has joined and has a certificate that counts, by team, role and name.
    pub(crate) fn list(&self, now: WallTime) -> Vec<MemberSummary> {
        let kept = self.kept();
        let members = kept.members.iter().filter(|member| now < member.end);
        let mut members: Vec<_> = members
            .map(|member| MemberSummary {
                identity: member.identity.clone(),
                joined: member.joined,
                valid_until: member.end,
            })
            .collect();
        members.sort_by(|a, b| a.identity.cmp(&b.identity));
        members
    }

    /// Lets all certificates of a member that were issued by `now` count no more; gives whose they are. It
    /// is named by its name, or as `<team>/<role>/<name>`. Waits for the disk.
    ///
    /// # Errors
    ///
    /// If nobody is called that, or several are, or the disk refuses.
    pub(crate) fn revoke_member(
        &self,
        named: &str,
        now: WallTime,
    ) -> Result<Identity, RevokeMemberError> {
        self.change(|kept| {
            kept.forget(now);
            let is_meant =
                |identity: &Identity| identity.name == named || in_full(identity) == named;
            let members = kept.members.iter().map(|member| &member.identity);
            let found: Vec<_> = members
                .filter(|&identity| is_meant(identity))
                .cloned()
                .collect();
            let identity = match &found[..] {
                [one] => one.clone(),
                // One that is not listed any more can be named in full.
                [] => from_full(named).ok_or_else(|| RevokeMemberError::Unknown {
                    named: named.to_owned(),
                })?,
                _ => {
                    return Err(RevokeMemberError::Ambiguous {
                        named: named.to_owned(),
                        found: found.iter().map(in_full).collect(),
                    });
                }
            };
            kept.members.retain(|member| member.identity != identity);
            kept.revoke(identity.clone(), now)
                .ok_or(RevokeMemberError::TooMany)?;
            Ok(identity)
        })
    }
}

impl Kept {
    /// Where the worker of this name stands.
    fn worker(&self, name: &str) -> Option<usize> {
        let is_it =
            |member: &Member| member.identity.role == Role::Worker && member.identity.name == name;
        self.members.iter().position(is_it)
    }

    fn check(&self, identity: &Identity, held: WallTime) -> Result<(), RegisterError> {
        let covers = |revocation: &Revocation| revocation.covers(identity, held);
        if self.revoked.iter().any(covers) {
            let identity = identity.clone();
            return Err(RegisterError::Revoked { identity });
        }
        Ok(())
    }

    /// When a certificate for `identity` is to be issued that no revocation covers.
    fn issue_time(&self, identity: &Identity, now: WallTime) -> WallTime {
        let of_it = self.revoked.iter().filter(|one| one.identity == *identity);
        let after = of_it.map(|revocation| revocation.at + AFTER_REVOCATION);
        after.max().map_or(now, |after| after.max(now))
    }

    /// Notes that a certificate of `identity` counts until `end`.
    fn note(
        &mut self,
        identity: &Identity,
        (now, end): (WallTime, WallTime),
    ) -> Result<(), RegisterError> {
        let known = self
            .members
            .iter_mut()
            .find(|one| one.identity == *identity);
        if let Some(member) = known {
            member.end = member.end.max(end);
            return Ok(());
        }
        if MEMBERS_MAX <= self.members.len() {
            // People are in the list to be seen only: of them the one that ends first gives way.
            let people = self.members.iter().enumerate();
            let people = people.filter(|(_, member)| member.identity.role.is_client());
            let first = people.min_by_key(|(_, member)| member.end);
            let first = first.map(|(at, _)| at).ok_or(RegisterError::TooMany)?;
            self.members.remove(first);
        }
        self.members.push(Member {
            identity: identity.clone(),
            joined: now,
            end,
            came: false,
        });
        Ok(())
    }

    fn came(&mut self, identity: &Identity) {
        let known = self.members.iter_mut();
        for member in known.filter(|member| member.identity == *identity) {
            member.came = true;
        }
    }

    /// Revokes; `None` if there are too many revocations.
    fn revoke(&mut self, identity: Identity, at: WallTime) -> Option<()> {
        self.revoked.retain(|one| one.identity != identity);
        if REVOCATIONS_MAX <= self.revoked.len() {
            return None;
        }
        self.revoked.push(Revocation { identity, at });
        Some(())
    }

    /// Forgets whose certificates are over.
    fn forget(&mut self, now: WallTime) {
        self.members.retain(|member| now < member.end);
        self.revoked.retain(|one| now < one.at + REVOCATION_KEPT);
    }
}

/// How a member is named in full.
fn in_full(identity: &Identity) -> String {
    format!("{}/{}/{}", identity.team, identity.role, identity.name)
}

/// The member that is named in full. The coordinator is none.
fn from_full(named: &str) -> Option<Identity> {
    let (team, rest) = named.split_once('/')?;
    let (role, name) = rest.split_once('/')?;
    let role = role
        .parse()
        .ok()
        .filter(|&role| role != Role::Coordinator)?;
    Some(Identity {
        team: team.parse().ok()?,
        role,
        name: name.to_owned(),
    })
}
