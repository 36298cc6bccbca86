//! Who gets which certificate.

use std::fs;

use super::*;
use crate::{
    Certificate, Credentials, GrantSigner,
    credentials::{CredentialsError, Request},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NOW: WallTime = WallTime(1_800_000_000_000);

fn identity(role: Role) -> Identity {
    Identity {
        team: "red".parse().unwrap(),
        role,
        name: "Zoë's laptop".to_owned(),
    }
}

fn issue(authority: &Authority, role: Role) -> Vec<u8> {
    let request = Request::new().unwrap();
    authority
        .issue(&request.der, &identity(role), NOW, DAY)
        .unwrap()
}

/// The text of a certificate's extensions: names and uses are in there.
fn extensions(certificate: &[u8]) -> String {
    let (_rest, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let parsed: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|extension| extension.parsed_extension().clone())
        .collect();
    format!("{parsed:?}")
}

#[test]
fn a_certificate_says_who_holds_it_and_until_when() {
    let authority = Authority::create().unwrap();
    for role in Role::ALL {
        let certificate = Certificate::parse(&issue(&authority, role)).unwrap();
        assert_eq!(certificate.identity, identity(role));
        assert_eq!(certificate.valid_from, WallTime(NOW.0 - 600_000));
        assert_eq!(certificate.valid_until, NOW + DAY);
        assert_eq!(certificate.serial.len(), 32);
    }
}

#[test]
fn no_two_certificates_have_the_same_number() {
    let authority = Authority::create().unwrap();
    let request = Request::new().unwrap();
    let serial = || {
        let issued = authority.issue(&request.der, &identity(Role::Worker), NOW, DAY);
        Certificate::parse(&issued.unwrap()).unwrap().serial
    };
    assert_ne!(serial(), serial());
}

#[test]
fn only_services_carry_a_servers_name_and_use() {
    let authority = Authority::create().unwrap();
    for role in Role::ALL {
        let found = extensions(&issue(&authority, role));
        let name = server_name(role).unwrap_or(".grange");
        assert_eq!(
            found.contains(name),
            server_name(role).is_some(),
            "{role}: {found}"
        );
        let serves = found.contains("server_auth: true");
        assert_eq!(serves, server_name(role).is_some(), "{role}: {found}");
        assert!(!found.contains("ca: true"), "{role}: {found}");
    }
}

#[test]
fn of_a_request_only_the_key_counts() {
    let authority = Authority::create().unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wish = CertificateParams::new(vec!["coordinator.grange".to_owned()]).unwrap();
    wish.distinguished_name = subject(&identity(Role::Admin)).distinguished_name;
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = wish.serialize_request(&key).unwrap();
    let issued = authority
        .issue(request.der(), &identity(Role::Worker), NOW, DAY)
        .unwrap();
    let certificate = Certificate::parse(&issued).unwrap();
    assert_eq!(certificate.identity, identity(Role::Worker));
    let found = extensions(&issued);
    assert!(!found.contains("coordinator"), "{found}");
    assert!(!found.contains("server_auth: true"), "{found}");
    assert!(!found.contains("ca: true"), "{found}");
}

#[test]
fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let authority = Authority::create().unwrap();
    let der = Request::new().unwrap().der;
    for at in [0, der.len() / 2, der.len() - 1] {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let issued = authority.issue(&changed, &identity(Role::Worker), NOW, DAY);
        assert!(
            matches!(issued, Err(IssueError::Request { .. })),
            "{at}: {issued:?}"
        );
    }
    let issued = authority.issue(b"", &identity(Role::Worker), NOW, DAY);
    assert!(matches!(issued, Err(IssueError::Request { bytes: 0, .. })));
}

#[test]
fn keys_of_another_kind_are_refused() {
    let authority = Authority::create().unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let issued = authority.issue(request.der(), &identity(Role::Worker), NOW, DAY);
    assert!(matches!(issued, Err(IssueError::KeyKind)), "{issued:?}");
}

#[test]
fn names_that_would_confuse_are_refused() {
    let authority = Authority::create().unwrap();
    let request = Request::new().unwrap();
    for name in ["", "a\nb", "a\0", &"x".repeat(NAME_BYTES_MAX + 1)] {
        let identity = Identity {
            name: name.to_owned(),
            ..identity(Role::Worker)
        };
        let issued = authority.issue(&request.der, &identity, NOW, DAY);
        assert!(matches!(issued, Err(IssueError::Name { .. })), "{name:?}");
    }
}

#[test]
fn times_that_x509_cannot_say_are_cut() {
    let authority = Authority::create().unwrap();
    let request = Request::new().unwrap();
    for now in [WallTime(0), WallTime(u64::MAX)] {
        let issued = authority
            .issue(&request.der, &identity(Role::Worker), now, Duration::MAX)
            .unwrap();
        let certificate = Certificate::parse(&issued).unwrap();
        assert_eq!(certificate.valid_until, WallTime(LAST_SECOND * 1_000));
    }
}

#[test]
fn an_authority_stays_the_same_across_restarts() {
    let temporary = tempfile::tempdir().unwrap();
    let first = Authority::load_or_create(temporary.path()).unwrap();
    let second = Authority::load_or_create(temporary.path()).unwrap();
    assert_eq!(first.certificate(), second.certificate());
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_ne!(
        first.fingerprint(),
        Authority::create().unwrap().fingerprint()
    );
    // What the second one issues is the first one's: it has its key too.
    let issued = issue(&second, Role::Worker);
    let (_rest, issued) = x509_parser::parse_x509_certificate(&issued).unwrap();
    let (_rest, authority) = x509_parser::parse_x509_certificate(first.certificate()).unwrap();
    assert_eq!(
        issued.verify_signature(Some(authority.public_key())),
        Ok(())
    );
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join(FILE);
    fs::write(&path, "nothing").unwrap();
    let error = Authority::load_or_create(temporary.path()).unwrap_err();
    assert!(matches!(
        error,
        AuthorityError::Keep {
            source: KeepError::Damaged { .. }
        }
    ));
    assert_eq!(fs::read(&path).unwrap(), b"nothing");
}

fn credentials(authority: &Authority) -> Credentials {
    let grant_key = GrantSigner::create().public_key();
    Credentials::self_issued(authority, identity(Role::Ci), &grant_key, NOW, DAY).unwrap()
}

#[test]
fn credentials_survive_the_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("identity");
    assert!(Credentials::load(&dir).unwrap().is_none());
    let authority = Authority::create().unwrap();
    for _renewal in 0..2 {
        let credentials = credentials(&authority);
        credentials.save(&dir).unwrap();
        let loaded = Credentials::load(&dir).unwrap().unwrap();
        assert_eq!(loaded.identity, identity(Role::Ci));
        assert_eq!(loaded.certificate(), credentials.certificate());
        assert_eq!(loaded.key(), credentials.key());
        assert_eq!(loaded.grant_key(), credentials.grant_key());
        assert_eq!(loaded.fingerprint(), authority.fingerprint());
    }
}

#[test]
fn credentials_are_renewed_at_half_their_life() {
    let credentials = credentials(&Authority::create().unwrap());
    let life = credentials.valid_until().since(credentials.valid_from());
    assert_eq!(life, DAY + CLOCK_SKEW);
    assert_eq!(credentials.renew_at(), credentials.valid_from() + life / 2);
}

#[test]
fn logs_do_not_show_keys() {
    let credentials = credentials(&Authority::create().unwrap());
    let shown = format!("{credentials:?}");
    assert!(shown.contains("[redacted]"), "{shown}");
    assert!(
        !shown.contains(&format!("{:?}", credentials.key())[..20]),
        "{shown}"
    );
}

#[test]
fn a_certificate_for_another_key_or_member_makes_no_credentials() {
    let authority = Authority::create().unwrap();
    let issued = |der: &[u8], said: Role| protocol::message::handshake::IssuedCertificate {
        identity: identity(said),
        certificate: authority
            .issue(der, &identity(Role::Worker), NOW, DAY)
            .unwrap(),
        authority: authority.certificate().to_vec(),
        grant_key: GrantSigner::create().public_key(),
    };
    let other = Request::new().unwrap().der;
    let made = Request::new()
        .unwrap()
        .complete(issued(&other, Role::Worker));
    assert!(
        matches!(made, Err(CredentialsError::OtherKey { .. })),
        "{made:?}"
    );

    let request = Request::new().unwrap();
    let certificate = issued(&request.der, Role::Admin);
    let made = request.complete(certificate);
    assert!(
        matches!(made, Err(CredentialsError::OtherIdentity { .. })),
        "{made:?}"
    );

    let request = Request::new().unwrap();
    let mut certificate = issued(&request.der, Role::Worker);
    certificate.grant_key.pop();
    let made = request.complete(certificate);
    assert!(
        matches!(made, Err(CredentialsError::GrantKey { .. })),
        "{made:?}"
    );
}
