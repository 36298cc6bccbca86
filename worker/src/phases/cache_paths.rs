//! Which files a `cache` section means.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use cache::selection::Selection;

use crate::{
    expand::expand,
    find::find,
    patterns::{Anchors, Pattern},
};

/// The paths of a `cache` section, as a selection below a root, and what to say about them.
#[derive(Debug)]
pub(super) struct CachePaths {
    /// What the patterns chose.
    pub(super) selection: Selection,
    /// Lines for the log.
    pub(super) said: Vec<String>,
}

/// Reads the paths as they were written; those that mean nothing are `None`.
pub(super) fn patterns(
    paths: &[String],
    variables: &BTreeMap<String, Vec<u8>>,
    anchors: &Anchors<'_>,
) -> Vec<(String, Option<Pattern>)> {
    let read = |written: &String| {
        let expanded = expand(written, variables);
        let pattern = Pattern::new(&expanded, anchors);
        (expanded, pattern)
    };
    paths.iter().map(read).collect()
}

/// Looks the patterns up below `root`. Blocking.
///
/// # Errors
///
/// If the root cannot be read.
pub(super) fn look_up(
    root: &Path,
    patterns: Vec<(String, Option<Pattern>)>,
) -> io::Result<CachePaths> {
    let mut said = Vec::new();
    let mut known = Vec::new();
    for (written, pattern) in patterns {
        match pattern {
            Some(pattern) => {
                said.push(format!("Expanded cache path {written}"));
                known.push(pattern);
            }
            None => said.push(format!("Skipping invalid cache path {written}")),
        }
    }
    let found = find(root, &known)?;
    let (mut paths, mut whole) = (BTreeSet::new(), BTreeSet::new());
    for (pattern, found) in known.iter().zip(found) {
        if found.is_empty() {
            said.push(format!("Nothing to cache at {}", pattern.written()));
        }
        for found in found {
            if found.is_directory && pattern.means_whole_directories() {
                whole.insert(found.path);
            } else {
                paths.insert(found.path);
            }
        }
    }
    Ok(CachePaths {
        selection: Selection::Listed { paths, whole },
        said,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ground::{HOME, SOURCE};

    #[test]
    fn a_named_directory_is_cached_whole_and_a_missing_one_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join(SOURCE).join("node_modules/a");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("x"), "x").unwrap();
        fs::create_dir_all(folder.path().join("root/.npm/_cacache")).unwrap();
        fs::write(folder.path().join("root/.npm/top"), "x").unwrap();
        let anchors = Anchors {
            source: SOURCE,
            home: HOME,
            root: "/",
        };
        let variables = BTreeMap::from([("DIR".to_owned(), b"node_modules".to_vec())]);
        let written = ["$DIR", "~/.npm/**/*", "target", "a["].map(str::to_owned);
        let read = patterns(&written, &variables, &anchors);
        let looked_up = look_up(folder.path(), read).unwrap();
        let shown = |paths: &BTreeSet<protocol::path::TreePath>| {
            let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
            shown.join(" ")
        };
        let Selection::Listed { paths, whole } = &looked_up.selection else {
            panic!("paths are listed");
        };
        assert_eq!(shown(whole), format!("{SOURCE}/node_modules"));
        assert_eq!(shown(paths), "root/.npm/_cacache root/.npm/top");
        assert_eq!(
            looked_up.said,
            [
                "Expanded cache path node_modules",
                "Expanded cache path ~/.npm/**/*",
                "Expanded cache path target",
                "Skipping invalid cache path a[",
                "Nothing to cache at target",
            ]
        );
    }
}
