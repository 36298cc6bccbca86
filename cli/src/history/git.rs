//! What git says of a repository: its commits, their files, and what is in these.

use std::{
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::HistoryError;

/// How large a file may be that is read, in bytes. Lock files have some megabytes at most.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The mode of a symbolic link.
const LINK: &str = "120000";
/// The variables that lead git to another repository than the one that is named: a hook has them.
const ELSEWHERE: [&str; 4] = [
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_WORK_TREE",
];

/// A commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Commit {
    pub(super) id: String,
    /// What git calls its source tree.
    pub(super) tree: String,
}

/// A file of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct CommitFile {
    pub(super) path: PathBuf,
    /// What git calls its content.
    pub(super) object: String,
    pub(super) bytes: u64,
}

/// The last `count` commits that lead to `HEAD`, oldest first.
///
/// # Errors
///
/// If git cannot say.
pub(super) fn commits(repository: &Path, count: u32) -> Result<Vec<Commit>, HistoryError> {
    let count = format!("--max-count={count}");
    let words: [&str; 5] = ["rev-list", "--reverse", &count, "--format=%T", "HEAD"];
    let listed = git(repository, &words)?;
    Ok(parse_commits(&String::from_utf8_lossy(&listed)))
}

/// Two lines each: `commit` and its id, its tree.
fn parse_commits(text: &str) -> Vec<Commit> {
    let lines: Vec<&str> = text.lines().collect();
    let commits = lines.chunks_exact(2).filter_map(|pair| {
        Some(Commit {
            id: pair[0].strip_prefix("commit ")?.to_owned(),
            tree: pair[1].to_owned(),
        })
    });
    commits.collect()
}

/// The files of a commit.
///
/// # Errors
///
/// If git cannot say.
pub(super) fn files(repository: &Path, commit: &Commit) -> Result<Vec<CommitFile>, HistoryError> {
    let words: [&str; 6] = ["ls-tree", "--full-tree", "-r", "-z", "-l", &commit.id];
    let listed = git(repository, &words)?;
    let rows = listed.split(|&byte| byte == 0);
    Ok(rows.filter_map(parse_file).collect())
}

/// One row: mode, kind, object, bytes, a tab, the path. `None` for what is no file, such as a submodule or
/// a link.
fn parse_file(row: &[u8]) -> Option<CommitFile> {
    let tab = row.iter().position(|&byte| byte == b'\t')?;
    let (facts, path) = (str::from_utf8(&row[..tab]).ok()?, &row[tab + 1..]);
    let mut facts = facts.split_ascii_whitespace();
    let (mode, kind) = (facts.next()?, facts.next()?);
    let (object, bytes) = (facts.next()?, facts.next()?);
    (kind == "blob" && mode != LINK).then_some(())?;
    Some(CommitFile {
        path: OsStr::from_bytes(path).into(),
        object: object.to_owned(),
        bytes: bytes.parse().ok()?,
    })
}

fn git(repository: &Path, words: &[&str]) -> Result<Vec<u8>, HistoryError> {
    let output = command(repository, words).output();
    let output = output.map_err(|source| HistoryError::Start { source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(HistoryError::Git {
        repository: repository.to_owned(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn command(repository: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(words);
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    // What a partial clone lacks is not fetched: only what is there is read.
    command.env("GIT_NO_LAZY_FETCH", "1");
    command
}

/// A git that gives the contents of files, one after the other; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Blobs {
    repository: PathBuf,
    child: Child,
    asked: ChildStdin,
    given: BufReader<ChildStdout>,
}

impl Blobs {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If there is no git.
    pub(super) fn open(repository: &Path) -> Result<Self, HistoryError> {
        let mut command = command(repository, &["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|source| HistoryError::Start { source })?;
        let (asked, given) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            repository: repository.to_owned(),
            child,
            asked: asked.expect("its input is piped"),
            given: BufReader::new(given.expect("its output is piped")),
        })
    }

    /// What is in a file.
    ///
    /// # Errors
    ///
    /// If git has it not, or it is too large.
    pub(super) fn read(&mut self, file: &CommitFile) -> Result<Vec<u8>, HistoryError> {
        if FILE_BYTES_MAX < file.bytes {
            return Err(HistoryError::TooLarge {
                path: file.path.clone(),
                bytes: file.bytes,
                max: FILE_BYTES_MAX,
            });
        }
        let asked = self.ask(&file.object);
        asked
            .map_err(|source| HistoryError::Read { source })?
            .map_err(|said| HistoryError::Git {
                repository: self.repository.clone(),
                said,
            })
    }

    /// The content of an object; or what git says instead.
    fn ask(&mut self, object: &str) -> io::Result<Result<Vec<u8>, String>> {
        writeln!(self.asked, "{object}")?;
        self.asked.flush()?;
        // Its name, its kind and its length; then the content and an end of line.
        let mut head = String::new();
        self.given.read_line(&mut head)?;
        let length = head.split_ascii_whitespace().nth(2);
        let Some(length) = length.and_then(|length| length.parse::<usize>().ok()) else {
            return Ok(Err(head.trim().to_owned()));
        };
        let mut content = vec![0; length + 1];
        self.given.read_exact(&mut content)?;
        content.truncate(length);
        Ok(Ok(content))
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_git_is_read_and_a_submodule_and_a_link_are_passed_by() {
        let row = b"100644 blob 0123abcd     120\tsrc/a file.rs";
        let file = CommitFile {
            path: "src/a file.rs".into(),
            object: "0123abcd".to_owned(),
            bytes: 120,
        };
        assert_eq!(parse_file(row), Some(file));
        let strange = parse_file(b"100644 blob 0123abcd 1\ta\xff\tb").unwrap();
        assert_eq!(strange.path.as_os_str().as_bytes(), b"a\xff\tb");
        assert_eq!(parse_file(b"160000 commit 0123abcd       -\tlib"), None);
        assert_eq!(parse_file(b"120000 blob 0123abcd       7\tlink"), None);
        assert_eq!(parse_file(b""), None);
    }

    #[test]
    fn commits_are_read_with_their_trees() {
        let commit = |id: &str, tree: &str| Commit {
            id: id.to_owned(),
            tree: tree.to_owned(),
        };
        let text = "commit 01\na1\ncommit 02\na2\n";
        assert_eq!(
            parse_commits(text),
            [commit("01", "a1"), commit("02", "a2")]
        );
        assert!(parse_commits("").is_empty());
    }
}
