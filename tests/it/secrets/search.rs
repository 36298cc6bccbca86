//! A search through all that a farm has: every file, every compressed chunk in it, and what the system shows of
//! the farm's own processes.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use cache::compression::bodies_in;
use testkit::program::grange;

/// Where something was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Which of what was sought.
    pub(crate) needle: usize,
    /// Where.
    pub(crate) place: String,
}

/// Searches the files below `directory`, and the environment and arguments of all processes of the program.
pub(crate) fn search(directory: &Path, needles: &[Vec<u8>]) -> Vec<Found> {
    let mut found = Vec::new();
    for path in files(directory) {
        let place = path.display().to_string();
        look(path.as_os_str().as_bytes(), needles, (&place, &mut found));
        // One that went away in the meantime is searched for nobody.
        let Ok(bytes) = fs::read(&path) else { continue };
        look(&bytes, needles, (&place, &mut found));
        let log = without_headers(&bytes);
        let unpacked = format!("unpacked from {place}");
        for run in [bytes, log] {
            for body in bodies_in(&run) {
                look(&body, needles, (&unpacked, &mut found));
            }
        }
    }
    let mut processes = 0;
    for process in own_processes() {
        for name in ["environ", "cmdline"] {
            let path = process.join(name);
            let bytes = fs::read(&path).unwrap_or_default();
            processes += usize::from(!bytes.is_empty());
            look(&bytes, needles, (&path.display().to_string(), &mut found));
        }
    }
    // Services, keepers and this test's own commands.
    if fs::read_dir("/proc").is_ok() {
        testkit::tell(&format!(
            "{processes} environments and command lines searched"
        ));
    }
    found
}

fn look(bytes: &[u8], needles: &[Vec<u8>], (place, found): (&str, &mut Vec<Found>)) {
    for (needle, sought) in needles.iter().enumerate() {
        if bytes.windows(sought.len()).any(|window| window == sought) {
            found.push(Found {
                needle,
                place: place.to_owned(),
            });
        }
    }
}

/// All files below a directory; links are not followed.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            files.extend(self::files(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

/// How long the blocks are into which RocksDB cuts its write-ahead log, in bytes.
const BLOCK_BYTES: usize = 32 * 1024;
/// How long the header of a piece is: checksum, length, kind; and of one in a log that is used again.
const HEADER_BYTES: usize = 7;
const LONG_HEADER_BYTES: usize = 11;

/// The bytes of a write-ahead log without the headers between its pieces: a chunk may be cut there.
fn without_headers(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes.len());
    for block in bytes.chunks(BLOCK_BYTES) {
        let mut rest = block;
        while let [_, _, _, _, low, high, kind, ..] = rest {
            let header = if *kind < 5 {
                HEADER_BYTES
            } else {
                LONG_HEADER_BYTES
            };
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let Some(piece) = rest
                .get(header..header + length)
                .filter(|piece| !piece.is_empty())
            else {
                break;
            };
            whole.extend_from_slice(piece);
            rest = &rest[header + length..];
        }
    }
    whole
}

/// The processes that run the program: services, keepers, helper commands.
fn own_processes() -> Vec<PathBuf> {
    let program = fs::canonicalize(grange()).unwrap();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_own = |path: &PathBuf| fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program);
    all.map(|entry| entry.path()).filter(is_own).collect()
}
