//! What tests of this crate share: directories made from a seed, a cache, and what is said where a test cannot be run.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use protocol::access::{Identity, Role};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use transport::{Authority, Client, Credentials, GrantSigner};

use crate::{
    client::CacheClient,
    clock::Clock,
    server::{Options, RunError, run},
};

/// Says that this machine cannot do what a test is about, and why; the test counts as passed, but not with
/// `GRANGE_SLOW_TESTS=1` or `GRANGE_NO_SKIP=1`: nothing would be proved there, and nobody would see it.
pub(crate) fn cannot(why: &str) {
    let must = is_set("GRANGE_SLOW_TESTS") || is_set("GRANGE_NO_SKIP");
    assert!(!must, "this machine has to be able to: {why}");
    // Past what catches a test's output, so that it is seen.
    let _closed = writeln!(io::stderr(), "skipped: {why}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts tests says so in the environment"
)]
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}

/// `SplitMix64`: numbers that do not repeat, the same on every run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// An index below `length`.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Fills `root` with about `entries` entries of all kinds and odd names; as root also of several owners, and with
/// capabilities.
pub(crate) fn grow_tree(root: &Path, seed: u64, entries: usize) {
    let mut noise = Noise(seed);
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut times = Vec::new();
    for number in 0..entries {
        let parent = &directories[noise.index(directories.len())];
        let path = parent.join(odd_name(&mut noise, number));
        match noise.below(16) {
            0..4 => {
                fs::create_dir(&path).unwrap();
                let mode = [0o755, 0o700, 0o1777, 0o2755][noise.index(4)];
                dress(&path, mode, &mut noise);
                directories.push(path.clone());
            }
            4 => {
                let target = ["missing", "../..", "/etc/passwd", "."][noise.index(4)];
                symlink(target, &path).unwrap();
                give_away(&path, &mut noise);
                continue;
            }
            5 if !files.is_empty() => {
                let old = &files[noise.index(files.len())];
                fs::hard_link(old, &path).unwrap();
                continue;
            }
            6 => {
                mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
                give_away(&path, &mut noise);
            }
            7 => {
                write_with_holes(&path, &mut noise);
                dress(&path, 0o644, &mut noise);
                files.push(path.clone());
            }
            _ => {
                write_file(&path, &mut noise);
                files.push(path.clone());
            }
        }
        let nanos = noise.below(4_000_000_000_000_000_000);
        times.push((path, SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)));
    }
    // Last, since what is made in a directory changes its time.
    for (path, time) in times {
        let metadata = path.metadata().unwrap();
        if metadata.is_file() || metadata.is_dir() {
            let readable = File::open(&path).unwrap();
            readable.set_modified(time).unwrap();
        }
    }
}

fn odd_name(noise: &mut Noise, number: usize) -> PathBuf {
    let mut name = match noise.below(8) {
        0 => b".hidden".to_vec(),
        1 => b"caf\xe9 \xff".to_vec(),
        2 => b"new\nline".to_vec(),
        3 => vec![b'l'; 240],
        4 => b"*?[a]{b}\\".to_vec(),
        5 => b"-rf".to_vec(),
        _ => b"plain".to_vec(),
    };
    name.extend(format!(".{number}").into_bytes());
    OsStr::from_bytes(&name).into()
}

fn write_file(path: &Path, noise: &mut Noise) {
    let length = match noise.below(24) {
        0..4 => 0,
        4 => 2 * 1024 * 1024,
        5 => 5_000_000,
        6..9 => 200_000,
        _ => noise.index(20_000),
    };
    // Every other file has bytes that compress, and some files are equal.
    let bytes = match noise.below(3) {
        0 => vec![b'x'; length],
        _ => noise.bytes(length),
    };
    fs::write(path, bytes).unwrap();
    let modes = [0o644, 0o755, 0o600, 0o444, 0o4755, 0o2711, 0o664];
    let mode = modes[noise.index(7)];
    dress(path, mode, noise);
}

/// Permission to listen at low ports, as `security.capability` has it: version 2, effective; the bits that are
/// permitted, and those that are inherited.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Gives a file or directory an owner, a mode, and now and then extended attributes. In this order: a new owner takes
/// set-user-id bits and capabilities away.
fn dress(path: &Path, mode: u32, noise: &mut Noise) {
    give_away(path, noise);
    if noise.below(8) == 0 {
        let value = noise.bytes(100);
        // Not every file system has them.
        let _unsupported = xattr::set(path, "user.grange.test", &value);
    }
    if path.is_file() && noise.below(24) == 0 {
        // Only root may.
        let _refused = xattr::set(path, "security.capability", &CAPABILITY);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives something to somebody else, now and then, if we are root.
fn give_away(path: &Path, noise: &mut Noise) {
    let mut one_of = |ids: [u32; 3]| ids[noise.index(3)];
    let (user, group) = (one_of([0, 1_234, 2_345]), one_of([0, 34, 4_321]));
    if geteuid().is_root() {
        // Root of a user namespace does not have every user.
        let _refused = lchown(path, Some(user), Some(group));
    }
}

fn write_with_holes(path: &Path, noise: &mut Noise) {
    let mut file = File::create(path).unwrap();
    for _ in 0..noise.below(4) {
        file.seek(SeekFrom::Current(
            1 + i64::try_from(noise.below(40)).unwrap() * 65_536,
        ))
        .unwrap();
        let length = noise.index(100_000);
        file.write_all(&noise.bytes(length)).unwrap();
    }
    let end = file.stream_position().unwrap();
    file.set_len(end + noise.below(3) * 1_000_000).unwrap();
}

/// A cache on loopback, and a client of it.
pub(crate) struct Cache {
    pub(crate) client: CacheClient,
    /// Ends when this is dropped.
    _running: JoinSet<Result<(), RunError>>,
    _directory: TempDir,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Starts a cache.
pub(crate) async fn cache() -> Cache {
    let authority = Authority::create().unwrap();
    let grant_key = GrantSigner::create().public_key();
    let credentials = |role: Role| {
        let identity = Identity {
            team: "team".parse().unwrap(),
            role,
            name: role.to_string(),
        };
        Credentials::self_issued(&authority, identity, &grant_key, Clock::wall(), DAY).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        listen: ([127, 0, 0, 1], 0).into(),
        directory: directory.path().to_owned(),
        budget: u64::MAX,
        free_low_water: 0,
        log_directory: None,
        hold: Duration::from_secs(600),
        metrics_listen: None,
        salvage: false,
        limits: crate::server::Limits::default(),
        congestion: transport::Congestion::default(),
        datagrams: transport::Datagrams::default(),
        cold: None,
    };
    let stop = CancellationToken::new();
    let (ready, address) = oneshot::channel();
    let mut running = JoinSet::new();
    running.spawn(run(options, credentials(Role::Cache), ready, stop));
    let client = Client::new(&credentials(Role::Admin)).unwrap();
    let connection = client
        .connect(address.await.unwrap(), Role::Cache)
        .await
        .unwrap();
    Cache {
        client: CacheClient::new(connection, "team".parse().unwrap()),
        _running: running,
        _directory: directory,
    }
}
