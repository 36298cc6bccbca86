//! What a connection may do. Pure: who is there, what the coordinator has granted, and the time go in.
//!
//! People and their CI read the entries of their own team; a build's trust does not bind them. They write
//! directories that they put there by hand, with the trust of their role; and their admins delete those.
//! Workers do only what their grants say. The coordinator does everything, and is believed what it says of an
//! entry.

use protocol::{
    access::{Grant, Identity, Role, Trust},
    message::{
        Refusal, RefusalCode,
        cache::{Entry, EntryKey, keys},
    },
    name::{Namespace, Team},
    time::WallTime,
};

/// How many live grants a connection may have. A worker presents one for each attempt, and each is good
/// for as long as its build may take; past this number the oldest goes. An attempt that needs it still
/// presents it again when it is denied something.
pub(crate) const GRANTS_MAX: usize = 1024;

/// Who is at the other end, and what was granted.
#[derive(Debug)]
pub(crate) struct Access {
    identity: Identity,
    grants: Vec<Grant>,
}

/// Who reads an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reader {
    /// Who may read its chunks after that; `None`: the coordinator reads as whom it likes.
    pub(crate) team: Option<Team>,
    /// The least trust that is shown.
    pub(crate) trust: Trust,
}

impl Access {
    /// What `identity` may do without any grant.
    pub(crate) const fn new(identity: Identity) -> Self {
        Self {
            identity,
            grants: Vec::new(),
        }
    }

    /// Takes a grant whose signature was verified.
    pub(crate) fn add(&mut self, grant: Grant, now: WallTime) -> Result<(), Refusal> {
        if self.identity.role != Role::Worker {
            return Err(self.deny("use a grant: grants are for workers"));
        }
        self.grants.retain(|grant| now < grant.end);
        // A renewed lease brings the same grant with a later end.
        self.grants.retain(|old| !same_but_end(old, &grant));
        if GRANTS_MAX <= self.grants.len() {
            self.grants.remove(0);
        }
        self.grants.push(grant);
        Ok(())
    }

    /// Whether chunks may be found, read and written for `team`.
    pub(crate) fn chunks(&self, team: &Team, now: WallTime) -> Result<(), Refusal> {
        let granted = self.live(now).any(|grant| grant.team == *team);
        let all = matches!(self.identity.role, Role::Coordinator | Role::Admin);
        let own = self.identity.role.is_client() && self.identity.team == *team;
        if all || granted || own {
            Ok(())
        } else {
            Err(self.deny(&format!("use chunks of team {team}")))
        }
    }

    /// As whom the entry under `key` may be read.
    pub(crate) fn read(&self, key: &EntryKey, now: WallTime) -> Result<Reader, Refusal> {
        self.reader(&key.namespace, &key.path, now)
            .ok_or_else(|| self.deny(&format!("read the entry {}/{}", key.namespace, key.path)))
    }

    /// The least trust of the entries that may be listed under `prefix`.
    pub(crate) fn list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        now: WallTime,
    ) -> Result<Trust, Refusal> {
        let reader = self.reader(namespace, prefix, now);
        reader
            .map(|reader| reader.trust)
            .ok_or_else(|| self.deny(&format!("list the entries under {namespace}/{prefix}")))
    }

    /// Whose entry it is that is written under `key`, and how far it is trusted. `entry` says what the
    /// writer claims: only the coordinator is believed.
    pub(crate) fn write(
        &self,
        key: &EntryKey,
        entry: &Entry,
        now: WallTime,
    ) -> Result<(Team, Trust), Refusal> {
        if self.identity.role == Role::Coordinator {
            return Ok((entry.team.clone(), entry.trust));
        }
        if self.is_own(&key.namespace) && key.path.starts_with(keys::SAVED) {
            return Ok((self.identity.team.clone(), self.identity.role.trust()));
        }
        let fitting = self
            .live(now)
            .filter(|grant| grant.namespace == key.namespace && covers(&grant.writes, &key.path));
        // With builds of different trust on one connection nobody knows which of them writes this.
        let least = fitting.min_by_key(|grant| grant.trust);
        least
            .map(|grant| (grant.team.clone(), grant.trust))
            .ok_or_else(|| self.deny(&format!("write the entry {}/{}", key.namespace, key.path)))
    }

    /// Whether entries may be deleted.
    pub(crate) fn delete(&self, namespace: &Namespace, prefix: &str) -> Result<(), Refusal> {
        let is_admin = self.identity.role == Role::Admin && self.is_own(namespace);
        if self.identity.role == Role::Coordinator || is_admin && prefix.starts_with(keys::SAVED) {
            Ok(())
        } else {
            Err(self.deny(&format!("delete the entries under {namespace}/{prefix}")))
        }
    }

    /// Whether room may be made before it is time.
    pub(crate) fn collect(&self) -> Result<(), Refusal> {
        match self.identity.role {
            Role::Coordinator | Role::Admin => Ok(()),
            _ => Err(self.deny("have the cache make room")),
        }
    }

    /// Whether certificates may be revoked.
    pub(crate) fn revoke(&self) -> Result<(), Refusal> {
        if self.identity.role == Role::Coordinator {
            Ok(())
        } else {
            Err(self.deny("revoke certificates"))
        }
    }

    /// Whether uses may be counted for `team`.
    pub(crate) fn record(&self, team: &Team, now: WallTime) -> Result<(), Refusal> {
        let granted = self.live(now).any(|grant| grant.team == *team);
        if granted || self.identity.role == Role::Coordinator {
            Ok(())
        } else {
            Err(self.deny(&format!("count uses of dependency caches for team {team}")))
        }
    }

    /// Of whom counts are shown; `None`: of all teams.
    pub(crate) fn counts_of(&self) -> Option<&Team> {
        match self.identity.role {
            Role::Coordinator | Role::Admin => None,
            _ => Some(&self.identity.team),
        }
    }

    fn reader(&self, namespace: &Namespace, path: &str, now: WallTime) -> Option<Reader> {
        let identity = &self.identity;
        if identity.role == Role::Coordinator {
            return Some(Reader {
                team: None,
                trust: Trust::Untrusted,
            });
        }
        if self.is_own(namespace) {
            return Some(Reader {
                team: Some(identity.team.clone()),
                trust: Trust::Untrusted,
            });
        }
        let fitting = self
            .live(now)
            .filter(|grant| grant.namespace == *namespace && covers(&grant.reads, path));
        // With builds of different trust on one connection, none sees what one of them may not.
        let strictest = fitting.max_by_key(|grant| grant.trust)?;
        Some(Reader {
            team: Some(strictest.team.clone()),
            trust: strictest.trust,
        })
    }

    /// Whether it is the namespace of the team of a person, or of their CI.
    fn is_own(&self, namespace: &Namespace) -> bool {
        let identity = &self.identity;
        identity.role.is_client() && *namespace == Namespace::from(identity.team.clone())
    }

    fn live(&self, now: WallTime) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(move |grant| now < grant.end)
    }

    fn deny(&self, what: &str) -> Refusal {
        let message = format!("{} may not {what}", self.identity);
        Refusal::new(RefusalCode::PermissionDenied, message)
    }
}

fn same_but_end(a: &Grant, b: &Grant) -> bool {
    (a.build, &a.team, &a.namespace, a.trust) == (b.build, &b.team, &b.namespace, b.trust)
        && (&a.writes, &a.reads) == (&b.writes, &b.reads)
}

/// Whether one of `prefixes` covers `path`. A prefix ends between words, so that `artifact/7/1` does
/// not cover `artifact/7/10`.
fn covers(prefixes: &[String], path: &str) -> bool {
    prefixes.iter().any(|prefix| {
        let rest = path.strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use protocol::build::BuildId;

    use super::*;

    const NOW: WallTime = WallTime(1_000);

    fn access(role: Role) -> Access {
        Access::new(Identity {
            team: "red".parse().unwrap(),
            role,
            name: "somebody".to_owned(),
        })
    }

    fn grant(trust: Trust, end: u64) -> Grant {
        Grant {
            build: BuildId(7),
            team: "blue".parse().unwrap(),
            namespace: "blue".parse().unwrap(),
            trust,
            writes: vec!["artifact/7/1".to_owned(), "snapshot/7/".to_owned()],
            reads: vec!["dependency/app/".to_owned()],
            end: WallTime(end),
        }
    }

    fn key(namespace: &str, path: &str) -> EntryKey {
        EntryKey {
            namespace: namespace.parse().unwrap(),
            path: path.to_owned(),
        }
    }

    fn entry() -> Entry {
        Entry {
            blobs: vec![],
            trees: vec![],
            outlines: vec![],
            trust: Trust::Protected,
            team: "green".parse().unwrap(),
            written: WallTime(0),
        }
    }

    fn team(name: &str) -> Team {
        name.parse().unwrap()
    }

    #[test]
    fn a_worker_does_what_its_grants_say_and_nothing_else() {
        let mut worker = access(Role::Worker);
        let write = |worker: &Access, namespace, path| {
            worker.write(&key(namespace, path), &entry(), NOW).ok()
        };
        assert_eq!(write(&worker, "blue", "snapshot/7/1"), None);
        worker.add(grant(Trust::Untrusted, 2_000), NOW).unwrap();
        let granted = Some((team("blue"), Trust::Untrusted));
        assert_eq!(write(&worker, "blue", "snapshot/7/1"), granted);
        assert_eq!(write(&worker, "blue", "artifact/7/1"), granted);
        assert_eq!(write(&worker, "blue", "artifact/7/10"), None);
        assert_eq!(write(&worker, "blue", "snapshot/77/1"), None);
        assert_eq!(write(&worker, "red", "snapshot/7/1"), None);
        assert_eq!(write(&worker, "blue", "dependency/app/x"), None);

        assert!(worker.read(&key("blue", "dependency/app/x"), NOW).is_ok());
        assert!(
            worker
                .read(&key("blue", "dependency/apple/x"), NOW)
                .is_err()
        );
        assert!(worker.read(&key("red", "dependency/app/x"), NOW).is_err());
        assert!(worker.chunks(&team("blue"), NOW).is_ok());
        assert!(worker.chunks(&team("green"), NOW).is_err());
        let own = worker.chunks(&team("red"), NOW);
        assert!(own.is_err(), "its own team is no grant");
        assert!(worker.record(&team("blue"), NOW).is_ok());
        assert!(
            worker
                .delete(&"blue".parse().unwrap(), "snapshot/7/")
                .is_err()
        );
    }

    #[test]
    fn a_grant_that_has_ended_is_worth_nothing() {
        let mut worker = access(Role::Worker);
        worker.add(grant(Trust::Team, 2_000), NOW).unwrap();
        let late = WallTime(2_000);
        assert!(worker.chunks(&team("blue"), late).is_err());
        assert!(worker.read(&key("blue", "dependency/app/x"), late).is_err());
        let snapshot = key("blue", "snapshot/7/1");
        assert!(worker.write(&snapshot, &entry(), late).is_err());
    }

    #[test]
    fn with_grants_of_different_trust_the_careful_one_counts() {
        let mut worker = access(Role::Worker);
        worker.add(grant(Trust::Protected, 2_000), NOW).unwrap();
        worker.add(grant(Trust::Untrusted, 2_000), NOW).unwrap();
        let reader = worker.read(&key("blue", "dependency/app/x"), NOW).unwrap();
        assert_eq!(reader.trust, Trust::Protected);
        let written = worker.write(&key("blue", "snapshot/7/1"), &entry(), NOW);
        assert_eq!(written.unwrap().1, Trust::Untrusted);
    }

    #[test]
    fn a_renewed_grant_takes_the_place_of_the_old_one() {
        let mut worker = access(Role::Worker);
        for end in 0..2 * GRANTS_MAX as u64 {
            worker.add(grant(Trust::Team, 2_000 + end), NOW).unwrap();
        }
        assert!(worker.chunks(&team("blue"), WallTime(2_100)).is_ok());
    }

    #[test]
    fn the_oldest_of_too_many_grants_goes() {
        let mut worker = access(Role::Worker);
        for attempt in 0..=GRANTS_MAX {
            let writes = vec![format!("snapshot/7/0/{attempt}")];
            let grant = Grant {
                writes,
                ..grant(Trust::Team, 2_000)
            };
            worker.add(grant, NOW).unwrap();
        }
        let may_write = |attempt: usize| {
            let key = key("blue", &format!("snapshot/7/0/{attempt}"));
            worker.write(&key, &entry(), NOW).is_ok()
        };
        assert!(!may_write(0) && may_write(1) && may_write(GRANTS_MAX));
    }

    #[test]
    fn people_read_what_is_their_teams_and_write_no_entries() {
        for role in [Role::Admin, Role::Ci, Role::Developer] {
            let mut person = access(role);
            assert!(person.read(&key("red", "artifact/7/1"), NOW).is_ok());
            assert!(person.read(&key("blue", "artifact/7/1"), NOW).is_err());
            assert!(
                person
                    .write(&key("red", "source/7"), &entry(), NOW)
                    .is_err()
            );
            assert!(person.delete(&"red".parse().unwrap(), "source/7").is_err());
            assert!(person.add(grant(Trust::Team, 2_000), NOW).is_err());
            assert!(person.chunks(&team("red"), NOW).is_ok());
            let all = person.chunks(&team("blue"), NOW).is_ok();
            assert_eq!(all, role == Role::Admin);
        }
    }

    #[test]
    fn people_put_directories_with_their_own_trust_and_admins_delete_those() {
        for role in Role::ALL {
            let person = access(role);
            let put = |namespace, path| person.write(&key(namespace, path), &entry(), NOW).ok();
            let own = put("red", "saved/mine");
            match role {
                Role::Admin | Role::Ci => assert_eq!(own, Some((team("red"), Trust::Protected))),
                Role::Developer => assert_eq!(own, Some((team("red"), Trust::Team))),
                Role::Coordinator => continue,
                Role::Worker | Role::Cache => assert_eq!(own, None),
            }
            assert_eq!(put("blue", "saved/mine"), None, "{role}");
            assert_eq!(put("red", "savedish/mine"), None, "{role}");
            let delete = |namespace: &str, prefix| {
                let namespace = namespace.parse().unwrap();
                person.delete(&namespace, prefix).is_ok()
            };
            assert_eq!(delete("red", "saved/mine"), role == Role::Admin);
            assert!(!delete("blue", "saved/mine"), "{role}");
            assert!(!delete("red", "s"), "{role}");
            assert_eq!(person.collect().is_ok(), role == Role::Admin);
        }
    }

    #[test]
    fn the_coordinator_is_believed() {
        let coordinator = access(Role::Coordinator);
        let written = coordinator.write(&key("blue", "source/7"), &entry(), NOW);
        assert_eq!(written, Ok((team("green"), Trust::Protected)));
        assert!(
            coordinator
                .delete(&"blue".parse().unwrap(), "source/7")
                .is_ok()
        );
    }
}
