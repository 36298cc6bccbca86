//! Dependency caches that no buildspec asks for: which directories the lock files of a source select, and
//! under which key.
//!
//! Pure. Nine buildspecs in ten have no `cache` section; their second build is fast all the same.

use std::collections::BTreeSet;

use protocol::{
    cache_spec::{CacheSpec, UnaskedCache},
    digest::{Digest, Hasher, hex},
    path::TreePath,
    tree::{EntryKind, Tree},
};

/// How many directories deep lock files are looked for: those of a repository of many packages. Deeper
/// ones are fixtures.
const DEPTH_MAX: usize = 3;
/// How many lock files count, in the order of the tree: more belong to a collection of examples, and their
/// caches would be as many.
const LOCK_FILES_MAX: usize = 32;
/// Directories that hold what others have locked.
const FOREIGN: [&str; 6] = ["node_modules", "vendor", ".git", ".venv", "venv", "target"];
/// What a pattern reads as something else than itself.
const SPECIAL: [char; 9] = ['*', '?', '[', ']', '{', '}', '!', '\\', '$'];

/// What a tool keeps that a second build can use.
struct Tool {
    /// What it is called.
    name: &'static str,
    /// The files that fix what it installs, by name.
    locks: &'static [&'static str],
    /// Directories beside such a file.
    beside: &'static [&'static str],
    /// Directories in the home directory.
    home: &'static [&'static str],
}

const NPM: &str = "npm";

/// All tools that are known. Where they keep things is what their documentation says of Linux.
const TOOLS: [Tool; 13] = [
    Tool {
        name: NPM,
        locks: &["package-lock.json", "npm-shrinkwrap.json"],
        beside: &["node_modules"],
        home: &[],
    },
    Tool {
        name: "yarn",
        locks: &["yarn.lock"],
        beside: &["node_modules", ".yarn/cache"],
        home: &[],
    },
    Tool {
        name: "pnpm",
        locks: &["pnpm-lock.yaml"],
        beside: &["node_modules"],
        home: &[".local/share/pnpm/store"],
    },
    Tool {
        name: "pip",
        locks: &["requirements.txt", "Pipfile.lock"],
        beside: &[".venv", "venv"],
        home: &[".cache/pip"],
    },
    Tool {
        name: "poetry",
        locks: &["poetry.lock"],
        beside: &[".venv"],
        home: &[".cache/pypoetry"],
    },
    Tool {
        name: "uv",
        locks: &["uv.lock"],
        beside: &[".venv"],
        home: &[".cache/uv"],
    },
    Tool {
        name: "cargo",
        locks: &["Cargo.lock"],
        beside: &["target"],
        home: &[".cargo/registry", ".cargo/git"],
    },
    Tool {
        name: "maven",
        locks: &["pom.xml"],
        beside: &[],
        home: &[".m2/repository"],
    },
    Tool {
        name: "gradle",
        locks: &[
            "gradle.lockfile",
            "build.gradle",
            "build.gradle.kts",
            "gradle-wrapper.properties",
        ],
        beside: &[],
        home: &[".gradle/caches", ".gradle/wrapper"],
    },
    Tool {
        name: "go",
        locks: &["go.sum"],
        beside: &[],
        home: &["go/pkg/mod", ".cache/go-build"],
    },
    Tool {
        name: "composer",
        locks: &["composer.lock"],
        beside: &["vendor"],
        home: &[".cache/composer"],
    },
    Tool {
        name: "bundler",
        locks: &["Gemfile.lock"],
        beside: &["vendor/bundle"],
        home: &[".bundle/cache"],
    },
    Tool {
        name: "nuget",
        locks: &["packages.lock.json"],
        beside: &[],
        home: &[".nuget/packages"],
    },
];

/// What `npm ci` leaves for the next one: it removes `node_modules` before it starts.
const NPM_CI: Tool = Tool {
    name: NPM,
    locks: &[],
    beside: &[],
    home: &[".npm"],
};

/// How the keys of all caches begin that nobody has asked for.
pub const UNASKED: &str = "lock-files/";

/// Whether the file at `path` of a source is one that such keys are made from.
pub fn is_lock_file(path: &TreePath) -> bool {
    std::str::from_utf8(path.as_bytes()).is_ok_and(|path| lock_file(path).is_some())
}

/// A dependency cache that lock files select.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selected {
    /// Which directories, as patterns of a `cache` section.
    pub spec: CacheSpec,
    /// The key: the lock files by name and content, and the file system underneath.
    pub key: String,
    /// How the keys of older entries that are still of use begin.
    pub fallback: String,
    /// The paths of the lock files.
    pub locks: Vec<String>,
    /// What selects what, a line each.
    pub said: Vec<String>,
}

/// What the lock files of `source` select for builds over `base`; `None`: there are none.
pub(crate) fn select(source: &Tree, base: &Digest, how: UnaskedCache) -> Option<Selected> {
    let entries = source.entries().iter();
    let files = entries.filter_map(|entry| match entry.kind {
        EntryKind::File { digest, .. } => {
            Some((std::str::from_utf8(entry.path.as_bytes()).ok()?, digest))
        }
        _ => None,
    });
    select_among(files, base, how)
}

/// The same for a source with these files, in the order of their paths.
pub fn select_among<'a>(
    files: impl Iterator<Item = (&'a str, Digest)>,
    base: &Digest,
    how: UnaskedCache,
) -> Option<Selected> {
    let found = files.filter_map(|(path, digest)| Some((lock_file(path)?, digest)));
    let mut paths = BTreeSet::new();
    let (mut locks, mut said) = (Vec::new(), Vec::new());
    let mut content = Hasher::default();
    for (lock, digest) in found.take(LOCK_FILES_MAX) {
        let tool = match lock.tool.name {
            NPM if how.npm_ci => &NPM_CI,
            _ => lock.tool,
        };
        let beside = tool.beside.iter().map(|path| match lock.directory {
            "" => format!("{path}/**/*"),
            directory => format!("{directory}/{path}/**/*"),
        });
        let home = tool.home.iter().map(|path| format!("~/{path}/**/*"));
        let selected: Vec<String> = beside.chain(home).collect();
        let shown = selected.join(", ");
        said.push(format!("{} ({}): {shown}", lock.path, tool.name));
        locks.push(lock.path.to_owned());
        paths.extend(selected);
        content.update(Digest::of(lock.path.as_bytes()).hash());
        content.update(digest.hash());
    }
    if paths.is_empty() {
        return None;
    }
    let fallback = format!("{UNASKED}{}/", hex(&base.hash()[..8]));
    let key = format!("{fallback}{}", hex(&content.finish().hash()[..16]));
    let spec = CacheSpec {
        key: Some(key.clone()),
        paths: paths.into_iter().collect(),
        ..CacheSpec::default()
    };
    Some(Selected {
        spec,
        key,
        fallback,
        locks,
        said,
    })
}

/// A lock file of a source.
struct LockFile<'a> {
    tool: &'static Tool,
    path: &'a str,
    /// Empty at the root of the source.
    directory: &'a str,
}

fn lock_file(path: &str) -> Option<LockFile<'_>> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let tool = TOOLS.iter().find(|tool| tool.locks.contains(&name))?;
    let mut words = directory.split('/').filter(|word| !word.is_empty());
    let is_near = words.clone().count() <= DEPTH_MAX;
    let is_own = words.all(|word| !FOREIGN.contains(&word));
    let is_plain = !directory.contains(SPECIAL);
    (is_near && is_own && is_plain).then_some(LockFile {
        tool,
        path,
        directory,
    })
}

#[cfg(test)]
mod tests {
    use protocol::tree::Entry;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut paths = BTreeSet::new();
        let mut entries = Vec::new();
        for (path, content) in files {
            for (at, _) in path.match_indices('/') {
                if paths.insert(path[..at].to_owned()) {
                    entries.push(Entry {
                        path: TreePath::new(&path[..at]).unwrap(),
                        kind: EntryKind::Directory { opaque: false },
                    });
                }
            }
            entries.push(Entry {
                path: TreePath::new(*path).unwrap(),
                kind: EntryKind::File {
                    digest: Digest::of(content.as_bytes()),
                    executable: false,
                },
            });
        }
        Tree::new(entries).unwrap()
    }

    fn selected(files: &[(&str, &str)]) -> Option<Selected> {
        select(&tree(files), &Digest::of(b"base"), UnaskedCache::default())
    }

    #[track_caller]
    fn check(files: &[&str], expected: &[&str]) {
        let files: Vec<_> = files.iter().map(|path| (*path, "x")).collect();
        let paths = selected(&files).map_or_else(Vec::new, |selected| selected.spec.paths);
        assert_eq!(paths, expected, "{files:?}");
    }

    #[test]
    fn each_lock_file_selects_what_its_tool_keeps() {
        check(&["package-lock.json"], &["node_modules/**/*"]);
        check(&["yarn.lock"], &[".yarn/cache/**/*", "node_modules/**/*"]);
        let pnpm = ["node_modules/**/*", "~/.local/share/pnpm/store/**/*"];
        check(&["pnpm-lock.yaml"], &pnpm);
        let pip = [".venv/**/*", "venv/**/*", "~/.cache/pip/**/*"];
        check(&["requirements.txt"], &pip);
        check(&["poetry.lock"], &[".venv/**/*", "~/.cache/pypoetry/**/*"]);
        check(&["uv.lock"], &[".venv/**/*", "~/.cache/uv/**/*"]);
        let cargo = ["target/**/*", "~/.cargo/git/**/*", "~/.cargo/registry/**/*"];
        check(&["Cargo.lock"], &cargo);
        check(&["pom.xml"], &["~/.m2/repository/**/*"]);
        let gradle = ["~/.gradle/caches/**/*", "~/.gradle/wrapper/**/*"];
        check(&["gradle/wrapper/gradle-wrapper.properties"], &gradle);
        check(
            &["go.sum"],
            &["~/.cache/go-build/**/*", "~/go/pkg/mod/**/*"],
        );
        check(
            &["composer.lock"],
            &["vendor/**/*", "~/.cache/composer/**/*"],
        );
        check(
            &["Gemfile.lock"],
            &["vendor/bundle/**/*", "~/.bundle/cache/**/*"],
        );
        check(&["packages.lock.json"], &["~/.nuget/packages/**/*"]);
        check(&["README.md", "src/main.c"], &[]);
    }

    #[test]
    fn packages_of_a_repository_count_and_what_was_installed_or_lies_deep_does_not() {
        check(
            &["app/package-lock.json", "tools/gen/Cargo.lock"],
            &[
                "app/node_modules/**/*",
                "tools/gen/target/**/*",
                "~/.cargo/git/**/*",
                "~/.cargo/registry/**/*",
            ],
        );
        check(&["node_modules/a/package-lock.json"], &[]);
        check(&["vendor/x/Cargo.lock"], &[]);
        check(&["a/b/c/d/Cargo.lock"], &[]);
        check(&["app/[slug]/package-lock.json"], &[]);
        let many: Vec<String> = (10..99).map(|n| format!("{n}/go.sum")).collect();
        let many: Vec<_> = many.iter().map(|path| (path.as_str(), "x")).collect();
        assert_eq!(selected(&many).unwrap().said.len(), LOCK_FILES_MAX);
    }

    #[test]
    fn what_npm_ci_deletes_is_not_kept_for_it() {
        let how = UnaskedCache { npm_ci: true };
        let tree = tree(&[("package-lock.json", "x"), ("web/yarn.lock", "y")]);
        let selected = select(&tree, &Digest::of(b"base"), how).unwrap();
        let expected = [
            "web/.yarn/cache/**/*",
            "web/node_modules/**/*",
            "~/.npm/**/*",
        ];
        assert_eq!(selected.spec.paths, expected);
        let said = [
            "package-lock.json (npm): ~/.npm/**/*",
            "web/yarn.lock (yarn): web/node_modules/**/*, web/.yarn/cache/**/*",
        ];
        assert_eq!(selected.said, said);
    }

    #[test]
    fn the_key_is_of_the_lock_files_and_of_what_lies_underneath_and_of_nothing_else() {
        let key = |files: &[(&str, &str)]| selected(files).unwrap().key;
        let one = key(&[("Cargo.lock", "1"), ("src/lib.rs", "a")]);
        assert_eq!(key(&[("Cargo.lock", "1"), ("src/lib.rs", "b")]), one);
        assert_ne!(key(&[("Cargo.lock", "2")]), one);
        assert_ne!(key(&[("sub/Cargo.lock", "1")]), one);
        let tree = tree(&[("Cargo.lock", "1")]);
        let other = select(&tree, &Digest::of(b"other"), UnaskedCache::default()).unwrap();
        assert_ne!(other.key, one);
        assert!(other.key.starts_with(&other.fallback));
        assert!(!one.starts_with(&other.fallback));
    }
}
