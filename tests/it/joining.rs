//! Who joins a farm, and stays a member: tokens, identities that are kept, certificates that are renewed.

use std::{
    fs,
    net::ToSocketAddrs as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use protocol::{
    access::{Identity, Role},
    time::WallTime,
};
use rustix::time::{ClockId, clock_gettime};
use testkit::{
    farm::{Farm, FarmPlan},
    wait,
};
use transport::{Authority, Credentials, GrantSigner};

use crate::home::Home;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate of a farm with its data in `farm` that was made `age` ago to live for ten days, for
/// somebody who is called like the role.
fn aged(farm: &Path, role: Role, age: Duration) -> Credentials {
    aged_as(farm, (role, role.as_str()), age)
}

fn aged_as(farm: &Path, (role, name): (Role, &str), age: Duration) -> Credentials {
    let coordinator = farm.join("coordinator");
    let authority = Authority::load_or_create(&coordinator.join("authority")).unwrap();
    let signer = GrantSigner::load_or_create(&coordinator.join("grants")).unwrap();
    let identity = Identity {
        team: "main".parse().unwrap(),
        role,
        name: name.to_owned(),
    };
    let now = clock_gettime(ClockId::Realtime).tv_sec.unsigned_abs();
    let made = WallTime((now - age.as_secs()) * 1_000);
    let grant_key = signer.public_key();
    Credentials::self_issued(&authority, identity, &grant_key, made, 10 * DAY).unwrap()
}

fn kept(directory: &Path) -> Credentials {
    Credentials::load(directory).unwrap().unwrap()
}

/// Where the identity is for the farm at an address.
fn place(home: &Home, address: &str) -> PathBuf {
    let name = address.replace(':', "_");
    home.data.join("grange/identities").join(name)
}

#[test]
fn a_persons_certificate_is_renewed_when_it_is_used_and_an_expired_one_is_named() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "0"]);
    let place = place(&home, up.address());
    let builds = ["builds", "--farm", up.address()];

    let fresh = aged(&home.farm(), Role::Developer, 4 * DAY);
    fresh.save(&place).unwrap();
    assert_eq!(home.run(&builds).code, 0);
    assert_eq!(kept(&place).serial(), fresh.serial());

    let half_over = aged(&home.farm(), Role::Developer, 6 * DAY);
    half_over.save(&place).unwrap();
    let listed = home.run(&builds);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    assert_ne!(kept(&place).serial(), half_over.serial());
    assert_eq!(kept(&place).identity, half_over.identity);

    aged(&home.farm(), Role::Developer, 11 * DAY)
        .save(&place)
        .unwrap();
    let refused = home.run(&builds);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
    let file = place.join("identity.pem");
    assert!(
        refused.stderr.contains(file.to_str().unwrap()),
        "{}",
        refused.stderr
    );

    let token = up.token("grange build --farm");
    let joined = home.run(&[&builds[..], &["--token", token]].concat());
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    assert_eq!(home.run(&builds).code, 0);
}

#[test]
fn a_farm_is_the_same_by_whatever_name_it_is_called() {
    if ("localhost", 0).to_socket_addrs().is_err() {
        testkit::skip("`localhost` has no address here; is there an /etc/hosts?");
        return;
    }
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "0"]);
    let name = up.address().replace("127.0.0.1", "localhost");
    let listed = home.run(&["builds", "--farm", &name]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
}

#[test]
fn tokens_of_the_wrong_kind_are_refused_and_leave_nothing_behind() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "0"]);
    let data = home.directory.path().join("worker");
    let worker = |token: &str| {
        let mut command = home.grange(&["worker", "--join", up.address(), "--token", token]);
        command.args(["--name", "guest", "--data"]).arg(&data);
        command
    };
    let for_people = up.token("grange build --farm");
    let refused = worker(for_people).output().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("a worker is needed"), "{errors}");
    assert!(!data.join("identity/identity.pem").exists());

    let mut unknown = for_people.to_owned();
    unknown.truncate(unknown.len() - 8);
    unknown += "00000000";
    let refused = worker(&unknown).output().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("token create"), "{errors}");

    let mut running = worker(up.token("grange worker --join"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait::until_true("the worker is there", || {
        let listed = home.run(&["workers", "--farm", up.address()]);
        listed.stdout.contains("guest")
    });
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn a_token_of_another_farm_replaces_the_identity_of_the_one_before() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0", "--workers", "0"]);
    let data = home.directory.path().join("cache");
    let stranger = tempfile::tempdir().unwrap();
    let stranger = aged(stranger.path(), Role::Cache, DAY);
    stranger.save(&data.join("identity")).unwrap();
    let created = home.run(&["token", "create", "--role", "cache", "--farm", up.address()]);
    let serve = |arguments: &[&str]| {
        let mut command = home.grange(&["cache", "serve", "--listen", "127.0.0.1:0", "--data"]);
        command
            .arg(&data)
            .args(["--join", up.address()])
            .args(arguments);
        command
    };
    let log = fs::File::create(home.directory.path().join("cache.log")).unwrap();
    let mut cache = serve(&["--token", created.stdout.trim()])
        .stderr(log)
        .spawn()
        .unwrap();
    wait::until_true("the cache has joined", || {
        kept(&data.join("identity")).fingerprint() != stranger.fingerprint()
    });
    cache.kill().unwrap();
    cache.wait().unwrap();
}

#[test]
fn a_services_certificate_is_renewed_while_it_runs() {
    let mut farm = Farm::start(FarmPlan::default());
    let data = farm.directory().join("farm");
    for (role, place) in [
        (Role::Cache, farm.directory().join("cache/identity")),
        (Role::Worker, farm.worker_directory(0).join("identity")),
    ] {
        match role {
            Role::Cache => farm.kill_cache(),
            _ => farm.kill_worker(0),
        }
        let name = kept(&place).identity.name;
        let half_over = aged_as(&data, (role, &name), 6 * DAY);
        half_over.save(&place).unwrap();
        match role {
            Role::Cache => farm.start_cache(),
            _ => farm.start_worker(0),
        }
        wait::until_true("the certificate is renewed", || {
            kept(&place).serial() != half_over.serial()
        });
    }
}

#[test]
fn a_farm_in_one_process_joins_its_parts_anew_when_their_time_is_over() {
    let home = Home::new();
    let up = home.up(&["--listen", "127.0.0.1:0"]);
    assert_eq!(up.end().0, Some(0));
    let place = home.farm().join("cache/identity");
    let expired = aged(&home.farm(), Role::Cache, 11 * DAY);
    expired.save(&place).unwrap();
    let up = home.up(&["--listen", "127.0.0.1:0"]);
    assert_ne!(kept(&place).serial(), expired.serial());
    let stats = home.run(&["cache", "stats", "--farm", up.address()]);
    assert_eq!(stats.code, 0, "{}", stats.stderr);
}
