//! Paths inside a tree: relative, of any bytes but NUL, and never leading outside.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// How long a path may be, in bytes; what Linux allows.
pub const PATH_BYTES_MAX: usize = 4096;
/// How long one name in a path may be, in bytes; what the common file systems allow.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// A path relative to the root of a tree: one or more names with `/` between them.
///
/// No name is empty, `.` or `..`, and none holds NUL, so joining one to a directory never leads outside
/// it (links aside). Names need not be UTF-8.
///
/// The order is the tree order: component by component, so that what a directory holds directly
/// follows it.
#[derive(Clone, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct TreePath(Vec<u8>);

/// Why bytes are no path inside a tree.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// The path is empty, absolute, or has `//` or a `/` at its end.
    #[error("path `{path}` has an empty name in it; paths in a tree are relative, like `a/b`")]
    EmptyName {
        /// The path, as well as it can be shown.
        path: String,
    },
    /// The path would lead out of the tree, or is a second spelling of another.
    #[error("path `{path}` has `.` or `..` in it, which could lead out of the tree")]
    Escapes {
        /// The path, as well as it can be shown.
        path: String,
    },
    /// A path of the file system cannot have this.
    #[error("path `{path}` holds a NUL byte")]
    Nul {
        /// The path, as well as it can be shown.
        path: String,
    },
    /// The path or one of its names is longer than file systems allow.
    #[error("path `{path}` is too long: {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// The path, as well as it can be shown.
        path: String,
        /// How long it, or its longest name, is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

impl TreePath {
    /// Takes a path from the outside.
    ///
    /// # Errors
    ///
    /// If it is not of the form that [`TreePath`] promises.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong {
                path: shown(),
                bytes: bytes.len(),
                limit: PATH_BYTES_MAX,
            });
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul { path: shown() });
        }
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" => return Err(PathError::EmptyName { path: shown() }),
                b"." | b".." => return Err(PathError::Escapes { path: shown() }),
                _ if name.len() > COMPONENT_BYTES_MAX => {
                    return Err(PathError::TooLong {
                        path: shown(),
                        bytes: name.len(),
                        limit: COMPONENT_BYTES_MAX,
                    });
                }
                _ => {}
            }
        }
        Ok(Self(bytes))
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The names in the path, outermost first; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The path of the directory that holds this; `None` for what lies in the root.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|&byte| byte == b'/')?;
        Some(Self(self.0[..slash].to_vec()))
    }

    /// The last name.
    pub fn name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// This path with `inner` below it.
    ///
    /// # Errors
    ///
    /// If both together are too long, or `inner` is no path inside a tree.
    pub fn join(&self, inner: &[u8]) -> Result<Self, PathError> {
        Self::new([&self.0, inner].join(&b'/'))
    }

    /// Whether this is `outer` or lies below it.
    pub fn is_within(&self, outer: &Self) -> bool {
        self.0 == outer.0 || (self.0.starts_with(&outer.0) && self.0[outer.0.len()] == b'/')
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // `/` sorts below every other byte, so that comparing bytes compares components.
        let key = |byte: u8| if byte == b'/' { 0 } else { byte };
        let mut pairs = self.0.iter().zip(&other.0);
        // Paths share most of their beginnings, so these are passed over first.
        match pairs.find(|(a, b)| a != b) {
            Some((&a, &b)) => key(a).cmp(&key(b)),
            None => self.0.len().cmp(&other.0.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<Vec<u8>> for TreePath {
    type Error = PathError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Self::new(bytes)
    }
}

impl From<TreePath> for Vec<u8> {
    fn from(path: TreePath) -> Self {
        path.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_lead_out_of_its_tree() {
        for path in ["", "/etc", "a//b", "a/", "../a", "a/../b", "./a", "a\0b"] {
            assert!(TreePath::new(path).is_err(), "{path:?} was taken");
        }
        assert!(TreePath::new("x".repeat(256)).is_err());
        assert!(TreePath::new(b"caf\xe9/...".to_vec()).is_ok());
    }

    #[test]
    fn what_a_directory_holds_follows_it_directly() {
        let mut paths: Vec<_> = ["a.txt", "a/b", "a-b", "a", "a/b/c", "b"]
            .map(|path| TreePath::new(path).unwrap())
            .into();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "a/b", "a/b/c", "a-b", "a.txt", "b"]);
    }

    #[test]
    fn within_is_by_component() {
        let path = |text: &str| TreePath::new(text).unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
    }
}
