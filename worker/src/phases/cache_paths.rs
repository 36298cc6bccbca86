//! Which files a `cache` section means.

use std::{collections::BTreeMap, fs, path::Path};

use cache::{
    globs::{CachedPaths, GlobError, View, find_cached},
    selection::Selection,
};

use super::source_path;
use crate::patterns::rooted;

/// The paths of a `cache` section, as a selection below a root, and what to say about them.
#[derive(Debug)]
pub(super) struct CachePaths {
    /// What the patterns chose.
    pub(super) selection: Selection,
    /// Lines for the log.
    pub(super) said: Vec<String>,
}

/// The patterns as they are below the root that commands know as `root`.
pub(super) fn patterns(
    written: &[String],
    variables: &BTreeMap<String, Vec<u8>>,
    root: &str,
) -> Vec<String> {
    let read = |written: &String| rooted(written, variables, root);
    written.iter().map(read).collect()
}

/// Whether a pattern means a directory that the worker's own root has something in: a build sees that, and
/// nobody has asked for it to be kept. Blocking.
pub(super) fn is_of_worker(pattern: &str) -> bool {
    let directory = pattern
        .strip_suffix("/**/*")
        .filter(|path| path.starts_with('/'));
    let entries = directory.and_then(|path| fs::read_dir(path).ok());
    entries.is_some_and(|mut entries| entries.next().is_some())
}

/// Looks the patterns up below `view`. Blocking.
///
/// # Errors
///
/// If one of them is no pattern, or a directory cannot be read.
pub(super) fn look_up(view: &Path, patterns: &[String]) -> Result<CachePaths, GlobError> {
    let source = source_path();
    let view = View {
        root: view,
        directory: Some(&source),
    };
    let CachedPaths {
        paths,
        whole,
        unmatched,
    } = find_cached(view, patterns)?;
    let expanded = patterns
        .iter()
        .map(|pattern| format!("Expanded cache path {pattern}"));
    let nothing = unmatched
        .iter()
        .map(|pattern| format!("Nothing to cache at {pattern}"));
    Ok(CachePaths {
        said: expanded.chain(nothing).collect(),
        selection: Selection::Listed { paths, whole },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::path::TreePath;

    use super::*;
    use crate::ground::SOURCE;

    #[test]
    fn what_the_worker_has_itself_is_told_from_what_a_build_made() {
        let own = tempfile::tempdir().unwrap();
        let pattern = |name: &str| format!("{}/{name}/**/*", own.path().display());
        fs::create_dir_all(own.path().join("registry/index")).unwrap();
        fs::create_dir(own.path().join("empty")).unwrap();
        assert!(is_of_worker(&pattern("registry")));
        assert!(!is_of_worker(&pattern("empty")));
        assert!(!is_of_worker(&pattern("none")));
        assert!(!is_of_worker("src/**/*"), "beside the source");
    }

    #[test]
    fn what_is_to_be_cached_is_found_below_source_and_home_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join(SOURCE).join("node_modules/a");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(folder.path().join("root/.npm")).unwrap();
        fs::write(folder.path().join("root/.npm/top"), "x").unwrap();
        let variables = BTreeMap::from([("DIR".to_owned(), b"node_modules".to_vec())]);
        let written = ["$DIR", "~/.npm/**/*", "target"].map(str::to_owned);
        let read = patterns(&written, &variables, "/");
        let looked_up = look_up(folder.path(), &read).unwrap();
        let Selection::Listed { paths, whole } = &looked_up.selection else {
            panic!("paths are listed");
        };
        let shown = |paths: &BTreeSet<TreePath>| {
            let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
            shown.join(" ")
        };
        assert_eq!(shown(whole), format!("{SOURCE}/node_modules"));
        assert_eq!(shown(paths), "root/.npm/top");
        assert_eq!(looked_up.said.len(), 4);
        assert_eq!(looked_up.said[3], "Nothing to cache at target");
    }
}
