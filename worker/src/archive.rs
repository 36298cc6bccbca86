//! What fetches and unpacks an archive, and what its failures mean.
//!
//! Both are done by commands in the sandbox, as those of git are: what anybody may have made is read where nothing of
//! the worker is, with limits of the kernel, and ends with the attempt. `grange unpack` is this program.

mod unpack;

use std::{
    ffi::OsString,
    io::{Write as _, stderr},
    path::Path,
    process::ExitCode,
};

use protocol::{archive::ArchiveFormat, report::Chain};

use self::unpack::{Limits, UnpackError, unpack};
use crate::word;

/// How many bytes an archive may have: 2 GiB, several times what repositories have.
const ARCHIVE_BYTES_MAX: u64 = 2 << 30;
/// How often a server may lead elsewhere.
const REDIRECTS_MAX: u32 = 5;
/// How many seconds a server may take to answer: three tries at a lost packet, and a slow one.
const CONNECT_SECONDS: u32 = 30;
/// How many bytes per second have to come, and for how many seconds fewer may: who is slower holds a slot for days.
const BYTES_PER_SECOND_MIN: u32 = 1000;
const SLOW_SECONDS_MAX: u32 = 60;
/// The bytes that `ulimit -f` counts in.
const BLOCK_BYTES: u64 = 512;
/// How much memory unpacking may take, in KiB: the directory of a zip is held in it, and the names of all entries.
const MEMORY_KIB_MAX: u64 = 1 << 20;

/// The status of `grange unpack` for an archive that cannot be unpacked (`EX_DATAERR` of `sysexits.h`).
const REFUSED: u8 = 65;
/// The status for trouble that is not the archive's doing (`EX_IOERR`).
const TROUBLE: u8 = 74;

/// Fetches what is at `url` into a file; complaints go to another. `protocols` are all that may be spoken, and a
/// redirect leads to `https` only.
pub(crate) fn download(url: &str, (to, complaint): (&Path, &Path), protocols: &[String]) -> String {
    let (to, complaint) = (word::of_path(to), word::of_path(complaint));
    format!(
        "ulimit -f {}; curl --disable --fail --silent --show-error --globoff --location \
         --max-redirs {REDIRECTS_MAX} --proto ={} --proto-redir =https --max-filesize {ARCHIVE_BYTES_MAX} \
         --connect-timeout {CONNECT_SECONDS} --speed-limit {BYTES_PER_SECOND_MIN} \
         --speed-time {SLOW_SECONDS_MAX} --output {to} -- {} 2>{complaint}",
        ARCHIVE_BYTES_MAX / BLOCK_BYTES,
        protocols.join(","),
        word::of_text(url),
    )
}

/// Writes the SHA-256 of a file into another.
pub(crate) fn hash(file: &Path, (to, complaint): (&Path, &Path)) -> String {
    let [file, to, complaint] = [file, to, complaint].map(word::of_path);
    format!("sha256sum <{file} >{to} 2>{complaint}")
}

/// Unpacks an archive into a directory, which is made; `program` is this one.
pub(crate) fn unpacking(
    program: &Path,
    (from, to): (&Path, &Path),
    (format, complaint): (ArchiveFormat, &Path),
) -> String {
    let [program, from, to, complaint] = [program, from, to, complaint].map(word::of_path);
    let format = format.as_str();
    format!("ulimit -v {MEMORY_KIB_MAX}; {program} unpack {format} {from} {to} 2>{complaint}",)
}

/// Whose doing it is that a command did not go well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// That of whoever named the archive, and what to say.
    Refused(String),
    /// The machine's: another may do better.
    Trouble(String),
}

/// What the status of [`download`] means, and what curl said.
pub(crate) fn not_downloaded(status: i32, said: &str) -> Failure {
    match status {
        // It cannot start, or not do what it is asked to, has no certificates, nothing can be written, or there is no
        // memory.
        1 | 2 | 4 | 23 | 27 | 77 | 126 | 127 | 134 | 137 | 139 => {
            Failure::Trouble(format!("curl ended with status {status}: {said}"))
        }
        // It says so itself, or is ended by `SIGXFSZ`.
        63 | 153 => Failure::Refused(format!("it has more than {ARCHIVE_BYTES_MAX} bytes")),
        status if said.is_empty() => Failure::Refused(format!("curl ended with status {status}")),
        _ => Failure::Refused(said.to_owned()),
    }
}

/// What the status of [`unpacking`] means, and what was said.
pub(crate) fn not_unpacked(status: i32, said: &str) -> Failure {
    match u8::try_from(status) {
        Ok(REFUSED) => Failure::Refused(said.to_owned()),
        // Ended where it may take no more memory, by `SIGABRT` or `SIGSEGV`. `SIGKILL` comes from a machine that has
        // none left.
        Ok(134 | 139) => Failure::Refused(UnpackError::Memory.to_string()),
        _ => Failure::Trouble(format!("it ended with status {status}: {said}")),
    }
}

/// What is said of an archive that cannot be had.
pub(crate) fn failed(url: &str, why: &str) -> String {
    let lines = why.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    format!(
        "Download failed: {url} of primary source: {}",
        lines.join("; ")
    )
}

/// Unpacks an archive: what the program does when its first argument is `unpack`. `arguments` are those behind that:
/// a format, where the archive is, and where to.
pub fn unpack_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let [format, from, to] = &arguments[..] else {
        return ExitCode::FAILURE;
    };
    let Some(format) = format.to_str().and_then(ArchiveFormat::named) else {
        return ExitCode::FAILURE;
    };
    let Err(error) = unpack(Path::new(from), Path::new(to), (format, Limits::ALLOWED)) else {
        return ExitCode::SUCCESS;
    };
    // Nobody may listen.
    let _told = writeln!(stderr(), "{}", Chain(&error));
    ExitCode::from(match error {
        UnpackError::Disk { .. } => TROUBLE,
        _ => REFUSED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_one_word_behind_a_double_dash() {
        let places = (Path::new("/a b"), Path::new("/e"));
        let protocols = ["https".to_owned(), "file".to_owned()];
        let command = download("https://x/'; touch /y; '.zip", places, &protocols);
        assert!(
            command.ends_with(r"--output '/a b' -- 'https://x/'\''; touch /y; '\''.zip' 2>'/e'"),
            "{command}"
        );
        assert!(command.contains("--proto =https,file --proto-redir =https "));
        assert!(command.contains("--max-filesize 2147483648 "), "{command}");
    }

    #[test]
    fn failures_are_one_line_with_the_address() {
        let said = failed("https://x/a.zip", "curl: (22) 404\n\n");
        assert_eq!(
            said,
            "Download failed: https://x/a.zip of primary source: curl: (22) 404"
        );
    }

    #[test]
    fn what_the_machine_lacks_is_not_the_archives_doing() {
        let is_trouble = |failure: Failure| matches!(failure, Failure::Trouble(_));
        for status in [1, 2, 4, 23, 27, 77, 126, 127, 137] {
            assert!(is_trouble(not_downloaded(status, "x")), "{status}");
        }
        for status in [6, 22, 63, 153] {
            assert!(!is_trouble(not_downloaded(status, "")), "{status}");
        }
        let Failure::Refused(why) = not_downloaded(153, "") else {
            panic!()
        };
        assert_eq!(why, "it has more than 2147483648 bytes");
        assert!(is_trouble(not_unpacked(TROUBLE.into(), "x")));
        assert!(is_trouble(not_unpacked(127, "x")));
        assert!(is_trouble(not_unpacked(137, "")));
        assert!(!is_trouble(not_unpacked(REFUSED.into(), "x")));
        assert!(!is_trouble(not_unpacked(134, "")));
    }
}
