//! Which commit is checked out, as git's own files say (gitrepository-layout(5)).

use std::{fs, path::Path};

/// How often a reference may lead to another before it is taken for a circle; git's own limit.
const LINKS_MAX: usize = 5;

/// The commit that is checked out in the repository at `git`; `None` if there is none, or it is kept in
/// a form that only git itself reads.
pub(super) fn commit(git: &Path) -> Option<String> {
    let mut name = "HEAD".to_owned();
    for _ in 0..LINKS_MAX {
        let text = match fs::read_to_string(git.join(&name)) {
            Ok(text) => text,
            Err(_) => return packed(git, &name),
        };
        let text = text.trim();
        match text.strip_prefix("ref: ") {
            Some(next) if !next.contains("..") => name = next.to_owned(),
            Some(_) => return None,
            None => return is_commit(text).then(|| text.to_owned()),
        }
    }
    None
}

/// A reference that was packed together with others.
fn packed(git: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(git.join("packed-refs")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (commit, _) = lines.find(|(commit, packed)| is_commit(commit) && *packed == name)?;
    Some(commit.to_owned())
}

/// A SHA-1 or SHA-256, in hex.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
