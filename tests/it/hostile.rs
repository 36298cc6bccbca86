//! Bad input on the wire and on the disk: refused by name, and the farm goes on.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use protocol::{
    access::Role,
    digest::Digest,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest},
    },
};
use testkit::{
    farm::{Farm, FarmPlan},
    project,
};
use transport::{Client, Credentials, JoinToken};

const HELLO: &str = "
version: 0.2
phases:
  build:
    commands: [echo hello]
";

/// The farm still builds.
#[track_caller]
fn check_alive(farm: &Farm) {
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), HELLO);
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
}

/// The resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// The most that this ever was, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Frames that make no sense.
const FRAMES: [&[u8]; 5] = [
    &[0xff; 64],                  // One that says it has four gigabytes.
    &[8, 0, 0, 0, 0xff, 0xff],    // One that ends before it says.
    &[4, 0, 0, 0, 0xfe, 1, 2, 3], // One that is no request.
    &[],                          // Nothing at all.
    &[0, 0, 0, 0],                // An empty one.
];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Joins the farm in `role`.
async fn join(farm: &Farm, role: &str) -> (SocketAddr, Credentials) {
    let token: JoinToken = farm.token(role).parse().unwrap();
    let address = farm.address.parse().unwrap();
    (
        address,
        transport::enrol(address, &token, "stranger").await.unwrap(),
    )
}

#[test]
fn garbage_on_the_port_costs_nothing() {
    let farm = Farm::start(FarmPlan::default());
    let before = resident_kib(farm.coordinator_pid());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = Digest::of(b"seed");
    for size in (1..1400).cycle().take(20_000) {
        noise = Digest::of(noise.hash());
        let bytes: Vec<u8> = noise.hash().iter().copied().cycle().take(size).collect();
        socket.send_to(&bytes, &farm.address).unwrap();
    }
    check_alive(&farm);
    let grown = resident_kib(farm.coordinator_pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
}

#[test]
fn frames_that_make_no_sense_end_at_most_their_connection() {
    let farm = Farm::start(FarmPlan::default());
    let before = resident_kib(farm.coordinator_pid());
    runtime().block_on(async {
        let (address, credentials) = join(&farm, "developer").await;
        let client = Client::new(&credentials).unwrap();
        let services = [
            (address, Role::Coordinator),
            (farm.cache_address.parse().unwrap(), Role::Cache),
        ];
        // Each frame to each service: their numbers have no common divisor.
        for round in 0..200 {
            let case = FRAMES[round % FRAMES.len()];
            let (address, role) = services[round % services.len()];
            let connection = client.connect(address, role).await.unwrap();
            let mut stream = connection.open().await.unwrap();
            // The server may hang up while this is written.
            let _sent = stream.send.bytes(bytes::Bytes::from_static(case)).await;
            stream.send.finish();
            let answer = stream
                .receive
                .message::<Result<ClientReply, Refusal>>()
                .await;
            assert!(
                !matches!(answer, Ok(Some(Ok(_)))),
                "{case:?} was taken for a request: {answer:?}"
            );
        }
    });
    check_alive(&farm);
    let grown = resident_kib(farm.coordinator_pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
}

#[test]
fn a_role_that_may_not_is_told_so() {
    let farm = Farm::start(FarmPlan::default());
    runtime().block_on(async {
        let (address, credentials) = join(&farm, "developer").await;
        let client = Client::new(&credentials).unwrap();
        let connection = client.connect(address, Role::Coordinator).await.unwrap();
        let requests = [
            ClientRequest::CreateToken {
                team: "main".parse().unwrap(),
                role: Role::Admin,
                lifetime: std::time::Duration::from_secs(60),
            },
            ClientRequest::Drain("worker-0".parse().unwrap()),
            ClientRequest::AnnounceCache(address),
        ];
        for request in requests {
            let mut stream = connection.open().await.unwrap();
            let reply: Result<ClientReply, Refusal> = stream.request(&request).await.unwrap();
            let refusal = reply.unwrap_err();
            assert!(
                refusal.message.contains("developer"),
                "{request:?}: {refusal}"
            );
        }
    });
    check_alive(&farm);
}

#[test]
fn who_has_no_certificate_or_one_of_another_farm_is_told_what_to_do() {
    let farm = Farm::start(FarmPlan::default());
    let other = Farm::start(FarmPlan::default());
    let home = tempfile::tempdir().unwrap();
    let nobody = Command::new(testkit::program::grange())
        .args(["builds", "--farm", &farm.address])
        .env("XDG_DATA_HOME", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert_eq!(nobody.status.code(), Some(2), "{said}");
    assert!(
        said.contains("--token") && said.contains("grange token create"),
        "{said}"
    );
    runtime().block_on(async {
        let (_, credentials) = join(&other, "developer").await;
        let client = Client::new(&credentials).unwrap();
        let refused = client
            .connect(farm.address.parse().unwrap(), Role::Coordinator)
            .await;
        assert!(refused.is_err(), "another farm's certificate was taken");
        let token: JoinToken = other.token("developer").parse().unwrap();
        let refused = transport::enrol(farm.address.parse().unwrap(), &token, "stranger").await;
        assert!(refused.is_err(), "another farm's token was taken");
    });
    check_alive(&farm);
}

#[test]
fn names_that_are_not_utf_8_and_links_that_loop_are_built() {
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - ls | od -c | grep -c '351'
      - readlink loop
      - readlink outside
",
    );
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(source.path().join(odd), "").unwrap();
    symlink("loop", source.path().join("loop")).unwrap();
    symlink("../../etc/passwd", source.path().join("outside")).unwrap();
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let lines: Vec<_> = built
        .stdout
        .lines()
        .filter(|line| !line.starts_with('['))
        .collect();
    assert_eq!(lines, ["1", "loop", "../../etc/passwd"]);
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let small = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"])
        .arg(small.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        testkit::cannot("a full disk needs a mount");
        return;
    }
    let unmount = Unmount(small.path().to_owned());
    let farm = Farm::start(FarmPlan {
        cache_directory: Some(small.path().join("cache")),
        settings: "[cache]\nfree_bytes_min = 33554432\n".to_owned(),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), HELLO);
    let first = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    // Bytes that do not compress, more than there is room for.
    let noise = Command::new("head")
        .args(["-c", "250M", "/dev/urandom"])
        .output()
        .unwrap();
    std::fs::write(source.path().join("noise"), &noise.stdout).unwrap();
    let full = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(full.code, 3, "{}\n{}", full.stdout, full.stderr);
    assert!(full.stderr.contains("bytes left"), "{}", full.stderr);
    assert!(farm.log("sample#1").contains("\nhello\n"));
    std::fs::remove_file(source.path().join("noise")).unwrap();
    // A larger file system: there is room again.
    let grown = Command::new("mount")
        .args(["-o", "remount,size=1g"])
        .arg(small.path())
        .status()
        .unwrap();
    assert!(grown.success());
    testkit::wait::until_true("writes work again", || {
        farm.build(source.path(), &["--project", "sample"]).code == 0
    });
    drop(farm);
    drop(unmount);
}

/// Unmounts when dropped.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
