//! The members' file as a whole: what it promises survives a restart.

use std::{fs, time::Duration};

use protocol::{
    access::{Identity, Role},
    digest::Digest,
    time::WallTime,
};

use super::{tokens::RedeemError, *};

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
    assert!(message.contains("version 4") && message.contains("up to 2"));
    fs::write(&path, "{\"version\": 1, \"cac").unwrap();
    let message = Members::open(path.clone()).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
}

fn member(team: &str, role: Role, name: &str) -> Identity {
    Identity {
        team: team.parse().unwrap(),
        role,
        name: name.to_owned(),
    }
}

/// Whether somebody with a certificate that was issued then is let in.
fn is_in(members: &Members, who: &Identity, issued: WallTime) -> bool {
    members.came(who, issued, (issued + HOUR, issued)).is_ok()
}

#[test]
fn a_workers_name_is_its_own_from_when_it_has_come_until_its_certificate_is_over() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("members");
    let w1 = member("red", Role::Worker, "w1");
    let members = Members::open(path.clone()).unwrap();
    assert_eq!(members.join(&w1, HOUR, NOW).unwrap(), NOW);
    assert!(is_in(&members, &w1, NOW));
    for members in [members, Members::open(path).unwrap()] {
        for other in [w1.clone(), member("blue", Role::Worker, "w1")] {
            let message = members.join(&other, HOUR, NOW).unwrap_err().to_string();
            for part in ["`w1`", "`--name`", "grange member revoke w1"] {
                assert!(message.contains(part), "{message}");
            }
        }
        members
            .join(&member("red", Role::Worker, "w2"), HOUR, NOW)
            .unwrap();
        members
            .join(&member("red", Role::Developer, "w1"), HOUR, NOW)
            .unwrap();
        // Renewed, it stays taken for longer.
        members.renew(&w1, NOW, (HOUR, NOW + HOUR / 2)).unwrap();
        assert!(members.join(&w1, HOUR, NOW + HOUR).is_err());
    }
    let members = Members::open(home.path().join("members")).unwrap();
    members.join(&w1, HOUR, NOW + HOUR * 2).unwrap();
}

#[test]
fn a_name_whose_certificate_got_lost_on_the_way_can_be_asked_for_again() {
    let home = tempfile::tempdir().unwrap();
    let members = Members::open(home.path().join("members")).unwrap();
    let w1 = member("red", Role::Worker, "w1");
    let first = members.join(&w1, HOUR, NOW).unwrap();
    let other = member("blue", Role::Worker, "w1");
    assert!(members.join(&other, HOUR, NOW).is_err(), "by its team only");
    let second = members.join(&w1, HOUR, NOW).unwrap();
    assert!(first < second);
    assert!(!is_in(&members, &w1, first), "one of the two counts");
    assert!(is_in(&members, &w1, second));
}

#[test]
fn who_is_revoked_stays_out_until_it_joins_again_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("members");
    let w1 = member("red", Role::Worker, "w1");
    let anna = member("red", Role::Developer, "anna");
    let members = Members::open(path.clone()).unwrap();
    for who in [&w1, &anna] {
        members.join(who, HOUR, NOW).unwrap();
        assert!(is_in(&members, who, NOW));
    }
    let mut revoked = members.revoked();
    revoked.mark_unchanged();
    assert_eq!(members.revoke_member("w1", NOW).unwrap(), w1);
    assert!(revoked.has_changed().unwrap());
    let members = Members::open(path).unwrap();
    assert_eq!(
        *members.revoked().borrow().to_vec(),
        [Revocation {
            identity: w1.clone(),
            at: NOW
        }]
    );
    assert!(!is_in(&members, &w1, NOW));
    assert!(members.renew(&w1, NOW, (HOUR, NOW)).is_err());
    assert!(is_in(&members, &anna, NOW));
    assert_eq!(members.list(NOW).len(), 1);
    // With a new token it comes back under its name; the certificate of before stays out.
    let issued = members.join(&w1, HOUR, NOW).unwrap();
    assert!(is_in(&members, &w1, issued));
    assert!(!is_in(&members, &w1, NOW));
}

#[test]
fn a_member_is_named_as_far_as_it_has_to_be() {
    let home = tempfile::tempdir().unwrap();
    let members = Members::open(home.path().join("members")).unwrap();
    for role in [Role::Worker, Role::Developer] {
        members.join(&member("red", role, "x"), HOUR, NOW).unwrap();
    }
    let message = members.revoke_member("x", NOW).unwrap_err().to_string();
    assert!(
        message.contains("red/worker/x, red/developer/x"),
        "{message}"
    );
    members.revoke_member("red/worker/x", NOW).unwrap();
    let left = members.revoke_member("x", NOW).unwrap();
    assert_eq!(left.role, Role::Developer);
    for nobody in ["x", "red/coordinator/coordinator"] {
        let message = members.revoke_member(nobody, NOW).unwrap_err().to_string();
        assert!(message.contains("grange member list"), "{message}");
    }
}

#[test]
fn a_token_is_listed_by_an_id_and_revoked_by_it_or_by_its_secret() {
    let home = tempfile::tempdir().unwrap();
    let members = Members::open(home.path().join("members")).unwrap();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    members.add_token(a, red(), HOUR * 2, NOW).unwrap();
    members.add_token(b, red(), HOUR, NOW).unwrap();
    let listed = members.tokens(NOW);
    assert!(b.to_string().starts_with(&listed[0].id));
    assert_eq!(members.tokens(NOW + HOUR).len(), 1);
    members.revoke_token(&listed[0].id, None).unwrap();
    assert_eq!(members.redeem(b, NOW), Err(RedeemError::Unknown));
    members.revoke_token("", Some(a)).unwrap();
    assert!(members.tokens(NOW).is_empty());
    assert!(members.revoke_token(&listed[0].id, None).is_err());
}

#[test]
fn who_only_looks_does_not_wait_for_who_changes_something() {
    let home = tempfile::tempdir().unwrap();
    let members = Members::open(home.path().join("members")).unwrap();
    let hash = Digest::of(b"secret");
    members.add_token(hash, red(), HOUR, NOW).unwrap();
    let changed = members.change(|kept| {
        kept.cache = Some("10.0.0.1:7000".parse().unwrap());
        // In the middle of a change, as while it is written.
        assert_eq!(members.redeem(hash, NOW), Ok(red()));
        assert!(members.kept().cache.is_none());
        Ok::<_, io::Error>(())
    });
    changed.unwrap();
    assert!(members.kept().cache.is_some());
}

#[test]
fn a_file_of_the_first_version_is_understood() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("members");
    fs::write(&path, "{\"version\": 1, \"cache\": null, \"tokens\": []}").unwrap();
    let members = Members::open(path.clone()).unwrap();
    // Who joined before comes with its certificate, and has its name from then on.
    let w1 = member("red", Role::Worker, "w1");
    assert!(is_in(&members, &w1, NOW));
    assert!(members.join(&w1, HOUR, NOW).is_err());
    assert!(!is_in(&members, &member("blue", Role::Worker, "w1"), NOW));
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("\"version\": 2"), "{text}");
}
