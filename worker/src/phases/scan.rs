//! Looks for secrets in what is to be stored outside the build: caches and artifacts. A file in which one is
//! found is named in the log, and left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    sync::Arc,
};

use cache::{capture::Captured, ongoing};
use protocol::{
    digest::Digest,
    path::TreePath,
    tree::{Entry, EntryKind},
};

use super::Work;
use crate::{
    fault::{Fault, blocking},
    secrets::Patterns,
};

/// How much of a file is read at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// What the log says of something in which the secret of `variable` was found.
pub(super) fn holds(variable: &str) -> String {
    format!("it holds the secret of the variable {variable}")
}

/// Which entries hold a secret; the log names them as `what` they are left out of. What was captured is
/// given back.
pub(super) async fn find(
    work: &Work<'_>,
    captured: Captured,
    what: &str,
) -> Result<(Captured, BTreeSet<TreePath>), Fault> {
    let Some(secrets) = &work.secrets else {
        return Ok((captured, BTreeSet::new()));
    };
    let patterns = Arc::clone(secrets.patterns());
    let look = move || look_through(&captured, &patterns).map(|found| (captured, found));
    let (captured, found) = blocking("look for secrets", look).await?;
    for (path, variable) in &found {
        work.say(&format!("Left out of {what}: {path}: {}", holds(variable)))
            .await?;
    }
    Ok((captured, found.into_keys().collect()))
}

/// The entries that hold a secret, each with the variable of one. Blocks.
fn look_through(
    captured: &Captured,
    patterns: &Patterns,
) -> io::Result<BTreeMap<TreePath, String>> {
    let mut files = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (index, entry) in captured.tree.entries().iter().enumerate() {
        let mut variable = of_entry(captured, (index, entry), patterns);
        if let (None, EntryKind::File { digest, .. }) = (&variable, &entry.kind) {
            variable = match files.get(digest) {
                Some(known) => Option::clone(known),
                None => {
                    let in_file = of_file(captured, digest, patterns)?;
                    files.insert(*digest, in_file.clone());
                    in_file
                }
            };
        }
        found.extend(variable.map(|variable| (entry.path.clone(), variable)));
    }
    Ok(found)
}

/// The variable whose secret is in what is known of an entry besides its bytes.
fn of_entry(
    captured: &Captured,
    (index, entry): (usize, &Entry),
    patterns: &Patterns,
) -> Option<String> {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.as_slice(),
        _ => &[],
    };
    let xattrs = captured.attributes.get(index).map(|of| of.xattrs.iter());
    let values = xattrs
        .into_iter()
        .flatten()
        .map(|(_, value)| value.as_slice());
    let mut texts = [entry.path.as_bytes(), target].into_iter().chain(values);
    let variable = texts.find_map(|text| patterns.find(text));
    variable.map(str::to_owned)
}

/// The variable whose secret is in the bytes of a file.
fn of_file(captured: &Captured, file: &Digest, patterns: &Patterns) -> io::Result<Option<String>> {
    if file.size() == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; BUFFER_BYTES];
    let mut read = captured.open(file)?;
    let mut scan = patterns.scan();
    loop {
        if ongoing::is_given_up() {
            return Err(io::Error::other("nobody wants it any more"));
        }
        match read.read(&mut bytes)? {
            0 => return Ok(None),
            length => {
                if let Some(variable) = scan.feed(&bytes[..length]) {
                    return Ok(Some(variable.to_owned()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use cache::{
        capture::{Dialect, capture},
        selection::Selection,
    };

    use super::*;

    #[test]
    fn a_secret_is_found_in_files_names_and_links_and_only_those_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/hunter2-dir")).unwrap();
        let long = [vec![b'x'; BUFFER_BYTES - 3], b"hunter2".to_vec()].concat();
        for (name, bytes) in [
            ("a/clean", &b"hunter"[..]),
            ("a/base64", b"x aHVudGVyMg== y"),
            ("a/hunter2-dir/inside", b"clean"),
            ("a/over-two-reads", &long),
        ] {
            fs::write(root.join(name), bytes).unwrap();
        }
        fs::hard_link(root.join("a/base64"), root.join("a/same")).unwrap();
        fs::hard_link(root.join("a/clean"), root.join("a/zlean")).unwrap();
        symlink("/x/hunter2", root.join("link")).unwrap();
        let captured = capture(root, &Selection::All, Dialect::Plain).unwrap();
        let secrets = [("TOKEN", &b"hunter2"[..])].into_iter();
        let patterns = Patterns::new(secrets).unwrap();
        let found = look_through(&captured, &patterns).unwrap();
        assert!(found.values().all(|variable| variable == "TOKEN"));
        let left = captured.without(&found.into_keys().collect()).unwrap();
        let shown = |entry: &Entry| entry.path.to_string();
        let paths: Vec<_> = left.tree.entries().iter().map(shown).collect();
        assert_eq!(paths, ["a", "a/clean", "a/zlean"]);
        assert_eq!(left.attributes.get(2).unwrap().hard_link_to, Some(1));
    }
}
