//! Looks for secrets in what is to be stored outside the build: caches and artifacts. What one is found in is not
//! stored, and the first places are named: a part of it would be of no use to who gets it later.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cache::{
    capture::{CaptureError, Captured},
    ongoing,
};
use protocol::{
    digest::Digest,
    path::TreePath,
    tree::{Entry, EntryKind},
};

use super::Work;
use crate::{
    fault::{Fault, blocking},
    ground::{HOME, SOURCE},
    secrets::{Patterns, UnitSecrets},
};

/// How much of a file is read at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// How many places are named: enough to find the command that wrote them.
pub(super) const NAMED_MAX: usize = 10;

/// How many files are read at the same time, at most: more would wait for one disk.
const THREADS_MAX: usize = 8;

/// What the log says of something in which the secret of `variable` was found.
pub(super) fn holds(variable: &str) -> String {
    format!("it holds the secret of the variable {variable}")
}

/// Where secrets were found, in no order: each path with the variable of one. More than [`NAMED_MAX`]: there may be
/// others.
pub(super) type Found = BTreeMap<TreePath, String>;

/// The places on a line, the first [`NAMED_MAX`] of them.
pub(super) fn shown(found: &Found) -> String {
    let named = found.iter().take(NAMED_MAX);
    let named: Vec<_> = named
        .map(|(path, variable)| format!("{path} (the secret of {variable})"))
        .collect();
    let others = match found.len() <= NAMED_MAX {
        true => "",
        false => " and others",
    };
    format!("{}{others}", named.join(", "))
}

/// What is looked through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Names {
    /// Paths are from the root: the names of the source's and the home directory are nobody's secret.
    FromRoot,
    /// Paths are as who gets them sees them.
    Whole,
}

/// A look for the secrets of a unit, if it has any.
#[derive(Clone, Debug)]
pub(super) struct Look {
    secrets: Option<Arc<UnitSecrets>>,
    names: Names,
}

impl Look {
    /// For those of an attempt.
    pub(super) fn new(work: &Work<'_>, names: Names) -> Self {
        let secrets = work.secrets.clone();
        Self { secrets, names }
    }

    /// Where there are some; what was captured is given back.
    pub(super) async fn find(&self, captured: Captured) -> Result<(Captured, Found), Fault> {
        let look = self.clone();
        let look = move || look.through(&captured).map(|found| (captured, found));
        blocking("look for secrets", look).await
    }

    /// What was captured once more, in which nothing was found before. Blocks.
    pub(super) fn again(&self, captured: Captured) -> Result<Captured, CaptureError> {
        let found = self.through(&captured);
        match found
            .map_err(|source| CaptureError::List { source })?
            .pop_first()
        {
            None => Ok(captured),
            Some((path, _)) => Err(CaptureError::Changed { path }),
        }
    }

    fn through(&self, captured: &Captured) -> io::Result<Found> {
        let Some(secrets) = &self.secrets else {
            return Ok(Found::new());
        };
        let patterns = secrets.stored().map_err(io::Error::other)?;
        look_through(captured, patterns, self.names)
    }
}

/// The entries that hold a secret, each with the variable of one, up to one more than are named. Blocks.
fn look_through(captured: &Captured, patterns: &Patterns, names: Names) -> io::Result<Found> {
    let mut found = Found::new();
    let mut files = BTreeMap::<Digest, &TreePath>::new();
    for (index, entry) in captured.tree.entries().iter().enumerate() {
        if let Some(variable) = of_entry(captured, (index, entry), (patterns, names)) {
            found.insert(entry.path.clone(), variable);
        } else if let EntryKind::File { digest, .. } = &entry.kind
            && 0 < digest.size()
        {
            files.entry(*digest).or_insert(&entry.path);
        }
        if NAMED_MAX < found.len() {
            return Ok(found);
        }
    }
    let files: Vec<_> = files.into_iter().collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(found);
    let read_some = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some((digest, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let look = of_file(captured, digest, (patterns, &mut buffer));
            if look.is_err() {
                // The others need not go on.
                next.store(files.len(), Ordering::Relaxed);
            }
            let Some(variable) = look? else { continue };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert((*path).clone(), variable);
            if NAMED_MAX < found.len() {
                next.store(files.len(), Ordering::Relaxed);
            }
        }
        Ok::<_, io::Error>(())
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(THREADS_MAX).min(files.len()))
            .map(|_| scope.spawn(ongoing::owned(read_some)))
            .collect();
        let mut looked = threads.into_iter();
        looked.try_for_each(|thread| thread.join().expect("looking does not panic"))
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The variable whose secret is in what is known of an entry besides its bytes.
fn of_entry(
    captured: &Captured,
    (index, entry): (usize, &Entry),
    (patterns, names): (&Patterns, Names),
) -> Option<String> {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.as_slice(),
        _ => &[],
    };
    let xattrs = captured.attributes.get(index).map(|of| of.xattrs.iter());
    let xattrs = xattrs.into_iter().flatten();
    let attributes = xattrs.flat_map(|(name, value)| [name.as_slice(), value.as_slice()]);
    let name = match names {
        Names::Whole => entry.path.as_bytes(),
        Names::FromRoot => own_name(entry.path.as_bytes()),
    };
    let mut texts = [name, target].into_iter().chain(attributes);
    let variable = texts.find_map(|text| patterns.find(text));
    variable.map(str::to_owned)
}

/// A path below the source or the home directory without that, if it is there.
fn own_name(path: &[u8]) -> &[u8] {
    let in_source = path.strip_prefix(SOURCE.as_bytes());
    let below = in_source.or_else(|| path.strip_prefix(HOME.as_bytes()));
    match below {
        Some(below) if below.is_empty() || below.starts_with(b"/") => below,
        // The directories that lead to the source.
        _ if SOURCE.as_bytes().starts_with(path) => &[],
        _ => path,
    }
}

/// The variable whose secret is in the bytes of a file.
fn of_file(
    captured: &Captured,
    file: &Digest,
    (patterns, buffer): (&Patterns, &mut [u8]),
) -> io::Result<Option<String>> {
    let mut read = captured.open(file)?;
    let mut scan = patterns.scan();
    loop {
        if ongoing::is_given_up() {
            return Err(io::Error::other("nobody wants it any more"));
        }
        match read.read(buffer)? {
            0 => return Ok(None),
            length => {
                if let Some(variable) = scan.feed(&buffer[..length]) {
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

    fn found(files: &[(&str, &[u8])], secret: &str, names: Names) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, bytes) in files {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), bytes).unwrap();
        }
        symlink(format!("/x/{secret}"), root.join("link")).unwrap();
        let captured = capture(root, &Selection::All, Dialect::Plain).unwrap();
        let secrets = [("TOKEN", secret.as_bytes())].into_iter();
        let patterns = Patterns::new(secrets, 8).unwrap();
        let found = look_through(&captured, &patterns, names).unwrap();
        assert!(found.values().all(|variable| variable == "TOKEN"));
        found.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_secret_is_found_in_files_names_and_links() {
        let long = [vec![b'x'; BUFFER_BYTES - 3], b"hunter22".to_vec()].concat();
        let files = [
            ("a/clean", &b"hunter2"[..]),
            ("a/base64", b"x aHVudGVyMjI= y"),
            ("a/hunter22-dir/inside", b"clean"),
            ("a/over-two-reads", &long),
        ];
        let dirty = ["a/base64", "a/hunter22-dir", "a/hunter22-dir/inside"];
        assert_eq!(
            found(&files, "hunter22", Names::Whole),
            [&dirty[..], &["a/over-two-reads", "link"]].concat()
        );
    }

    #[test]
    fn the_way_to_the_source_and_the_home_directory_is_no_secret() {
        let source = format!("{SOURCE}/a");
        let below = format!("{SOURCE}/codebuild/b");
        let home = format!("{HOME}/.m2/c");
        let files = [&source, &below, &home].map(|name| (name.as_str(), &b"clean"[..]));
        assert_eq!(
            found(&files, "codebuild", Names::FromRoot),
            [
                "codebuild/output/src/src/codebuild",
                "codebuild/output/src/src/codebuild/b",
                "link"
            ]
        );
        assert_eq!(own_name(b"rooted/x"), b"rooted/x");
    }

    #[test]
    fn what_is_found_is_named_up_to_a_limit() {
        let names: Vec<_> = (0..30).map(|number| format!("file-{number}")).collect();
        let bytes = |name: &String| format!("{name} hunter22").into_bytes();
        let files: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), bytes(name)))
            .collect();
        let files: Vec<_> = files
            .iter()
            .map(|(name, bytes)| (*name, &bytes[..]))
            .collect();
        let found = found(&files, "hunter22", Names::Whole);
        assert!(NAMED_MAX < found.len());
        let path = |name: &String| TreePath::new(name.as_str()).unwrap();
        let found = found.iter().map(|name| (path(name), "TOKEN".to_owned()));
        let shown = shown(&found.collect());
        assert_eq!(shown.matches("the secret of TOKEN").count(), NAMED_MAX);
        assert!(shown.ends_with(" and others"), "{shown}");
    }
}
