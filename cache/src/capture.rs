//! From a directory to a tree: what is there, and where its bytes are.
//!
//! The walk never follows a link and never leaves its root. It blocks: call it where blocking is
//! allowed. First everything is listed, then files are read and hashed in parallel; a file that changes
//! meanwhile is read once more and then refused by name. Who sends what is read here, and does not read
//! it again, has the files looked at once more in the end, so that a tree never holds half of a change.

mod facts;
mod hashing;
mod recheck;
mod sources;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    attributes::{ATTRIBUTES_PARTS_MAX, Attributes, EntryAttributes},
    digest::Digest,
    path::{PathError, TreePath},
    tree::{Entry, EntryKind, TREE_ENTRIES_MAX, Tree, TreeError},
};
use tokio::sync::mpsc;

use self::{
    hashing::{FileFacts, hash_files},
    walk::walk,
};
pub(crate) use self::{
    recheck::recheck,
    sources::{Source, Sources},
    walk::{Found, FoundKind},
};
use crate::{
    beneath::Root,
    cutting::Chunk,
    index::{IndexedFiles, Units},
    selection::Selection,
};

/// What special entries mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Nothing: everything is what it is.
    Plain,
    /// What overlayfs makes of them in an upper directory: a character device 0:0 is a whiteout, a
    /// directory with `trusted.overlay.opaque` hides what is below.
    Overlay,
}

/// A directory as it was captured: what it is, and where its bytes still are.
#[derive(Debug)]
pub struct Captured {
    /// What it is.
    pub tree: Tree,
    /// What else is needed to put it back.
    pub attributes: Attributes,
    pub(crate) sources: Sources,
    /// The files that are on disk, each by its first name, in tree order.
    pub(crate) seen: Vec<Seen>,
    /// How many files were not read, because they are as the index has them.
    pub(crate) known: u64,
    /// Units whose chunks were handed on while their files were read.
    pub(crate) units: Units,
}

impl Captured {
    /// Opens a file of the tree by its digest, for whoever wants to look into it before it is stored. Blocks.
    ///
    /// # Errors
    ///
    /// If it is not there any more, or cannot be read.
    pub fn open(&self, file: &Digest) -> io::Result<Box<dyn io::Read>> {
        self.sources.open(file)
    }
}

/// A file as it was when it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stamped {
    pub(crate) path: TreePath,
    pub(crate) stamp: Stamp,
    pub(crate) digest: Digest,
}

/// A file that is on disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) file: Stamped,
    /// Whether it was not read, because it is as the index has it.
    pub(crate) is_known: bool,
    /// Whether it has nothing that is not in an index: neither attributes of its own nor holes, as nearly all.
    pub(crate) is_plain: bool,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    /// Device and inode.
    pub(crate) node: (u64, u64),
    /// In bytes.
    pub(crate) size: u64,
    /// When its content last changed, in nanoseconds since 1970.
    pub(crate) modified: i64,
    /// When anything of it last changed.
    pub(crate) changed: i64,
}

/// Why a directory could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The directory itself cannot be opened: it is not there, is no directory, or may not be read.
    #[error("failed to open directory `{}`", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in it cannot be read: permissions, or the disk.
    #[error("failed to read `{path}`")]
    Read {
        /// What, relative to the directory.
        path: TreePath,
        /// What the system says.
        source: io::Error,
    },
    /// The directory itself cannot be listed.
    #[error("failed to list the directory")]
    List {
        /// What the system says.
        source: io::Error,
    },
    /// A file changed while it was read, twice, or after that, before all was sent. Whoever writes it has to stop
    /// first.
    #[error("`{path}` changes while it is read")]
    Changed {
        /// Which file.
        path: TreePath,
    },
    /// A directory was renamed in an overlay, so that what it holds is elsewhere, and the merged view
    /// was not given.
    #[error("`{path}` was moved inside the overlay, and the merged file system is not at hand")]
    Redirected {
        /// Which directory.
        path: TreePath,
    },
    /// A path is longer than a tree allows.
    #[error("failed to name an entry of `{directory}`")]
    Name {
        /// Where the entry is.
        directory: String,
        /// What is wrong with its path.
        source: PathError,
    },
    /// There are more entries than a tree may have.
    #[error("directory has more than {TREE_ENTRIES_MAX} entries")]
    TooMany,
    /// What is known of its entries would take whoever reads it too much memory: leave out sparse files, or what has
    /// so many extended attributes.
    #[error(
        "directory has {parts} holes and extended attributes, at most {ATTRIBUTES_PARTS_MAX} are allowed"
    )]
    TooManyParts {
        /// How many it has.
        parts: u64,
    },
    /// The directory changed while it was listed, or is larger than a tree may be.
    #[error("failed to put what was found into a tree")]
    Tree {
        /// What does not fit together.
        source: TreeError,
    },
}

/// Captures what `selection` chooses of the directory `root`. Blocks.
///
/// Sockets are left out: nobody listens on one that is put back.
///
/// # Errors
///
/// If anything chosen cannot be read, or changes while it is read.
pub fn capture(
    root: &Path,
    selection: &Selection,
    dialect: Dialect,
) -> Result<Captured, CaptureError> {
    let roots = vec![open_root(root)?];
    Capture {
        roots,
        selection,
        links: &[],
        dialect,
        detail: Detail::Full,
        replaced: BTreeMap::new(),
    }
    .run()
}

/// Captures an overlay's upper directory as a layer, with the merged file system at hand. Blocks.
///
/// Where a directory of lower layers was renamed, the upper directory only holds a hint; what it shows
/// is then read from `merged`, and the directory becomes an opaque one.
///
/// Each of `links` names one file of `merged` that has changed, by all its names. The upper directory may
/// have but one of them, or none; the layer gets them all.
///
/// # Errors
///
/// As for [`capture`].
pub fn capture_layer(
    upper: &Path,
    merged: &Path,
    links: &[BTreeSet<TreePath>],
) -> Result<Captured, CaptureError> {
    let roots = vec![open_root(upper)?, open_root(merged)?];
    Capture {
        roots,
        selection: &Selection::All,
        links,
        dialect: Dialect::Overlay,
        detail: Detail::Full,
        replaced: BTreeMap::new(),
    }
    .run()
}

/// How much of each entry is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Detail {
    /// All that there is.
    Full,
    /// What git would keep, and hard links: nothing that depends on who checked it out and when.
    Checkout,
}

/// What of a directory is captured.
#[derive(Clone, Debug)]
pub struct Subject {
    root: PathBuf,
    selection: Selection,
    detail: Detail,
    /// Bytes that stand in the place of those on disk.
    replaced: BTreeMap<TreePath, Bytes>,
}

impl Subject {
    /// All of the directory at `root`, with all that is known of it.
    pub const fn all(root: PathBuf) -> Self {
        Self {
            root,
            selection: Selection::All,
            detail: Detail::Full,
            replaced: BTreeMap::new(),
        }
    }

    /// Of a checkout at `root` what git would keep of what `selection` chooses.
    pub(crate) const fn checkout(
        root: PathBuf,
        selection: Selection,
        replaced: BTreeMap<TreePath, Bytes>,
    ) -> Self {
        Self {
            root,
            selection,
            detail: Detail::Checkout,
            replaced,
        }
    }

    /// What tells a directory from a checkout in the same place.
    pub(crate) const fn kind(&self) -> &'static [u8] {
        match self.detail {
            Detail::Full => b"directory",
            Detail::Checkout => b"checkout",
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the directory.
    pub(crate) fn capture(&self) -> Result<Capture<'_>, CaptureError> {
        Ok(Capture {
            roots: vec![open_root(&self.root)?],
            selection: &self.selection,
            links: &[],
            dialect: Dialect::Plain,
            detail: self.detail,
            replaced: self.replaced.clone(),
        })
    }

    /// Captures it. Blocks.
    ///
    /// # Errors
    ///
    /// As for [`capture`].
    pub fn run(&self) -> Result<Captured, CaptureError> {
        self.capture()?.run()
    }
}

/// One run of a capture.
pub(crate) struct Capture<'a> {
    /// The directory, and for a layer the merged file system.
    pub(crate) roots: Vec<Arc<Root>>,
    pub(crate) selection: &'a Selection,
    /// Files of the merged file system that belong to the layer, each by all its names.
    pub(crate) links: &'a [BTreeSet<TreePath>],
    pub(crate) dialect: Dialect,
    pub(crate) detail: Detail,
    /// Bytes that stand in the place of those on disk.
    pub(crate) replaced: BTreeMap<TreePath, Bytes>,
}

pub(crate) fn open_root(path: &Path) -> Result<Arc<Root>, CaptureError> {
    let opened = Root::open(path).map_err(|source| CaptureError::Root {
        path: path.to_owned(),
        source,
    });
    opened.map(Arc::new)
}

impl Capture<'_> {
    pub(crate) fn run(self) -> Result<Captured, CaptureError> {
        let found = self.look()?;
        self.read(found, None, None)
    }

    /// Lists everything, in tree order; reads no file.
    pub(crate) fn look(&self) -> Result<Vec<Found>, CaptureError> {
        let mut found = walk(self)?;
        if !found.is_sorted_by(|a, b| a.path < b.path) {
            found.sort_by(|a, b| a.path.cmp(&b.path));
        }
        Ok(found)
    }

    /// Reads the files that were found, but for those that are in `index` as they are. Their chunks go to `out`,
    /// if there is one.
    pub(crate) fn read(
        self,
        found: Vec<Found>,
        index: Option<&IndexedFiles>,
        out: Option<mpsc::Sender<Chunk>>,
    ) -> Result<Captured, CaptureError> {
        let links = hard_links(&found);
        let (facts, units) = hash_files(&self, &found, &links, index, out)?;
        let captured = self.assemble(found, &links, facts)?;
        Ok(Captured { units, ..captured })
    }

    /// Puts together what was found (in tree order) and what reading the files told (parallel to it).
    fn assemble(
        self,
        found: Vec<Found>,
        links: &[Option<usize>],
        mut facts: Vec<Option<FileFacts>>,
    ) -> Result<Captured, CaptureError> {
        let mut entries = Vec::with_capacity(found.len());
        let mut attributes = Vec::new();
        let mut files = BTreeMap::new();
        let mut seen = Vec::new();
        let mut known = 0;
        for (index, found) in found.into_iter().enumerate() {
            let first = links[index].unwrap_or(index);
            let mut of = self.attributes_of(&found);
            let kind = match found.kind {
                FoundKind::Other(kind) => kind,
                FoundKind::File => {
                    let facts = facts[first].as_mut().expect("the first name was read");
                    of.modified = of.modified.and(Some(facts.modified));
                    of.mode = of.mode.and(Some(facts.mode));
                    of.xattrs = std::mem::take(&mut facts.xattrs);
                    of.holes = std::mem::take(&mut facts.holes);
                    let source = facts.source.clone();
                    files.entry(facts.digest).or_insert(source);
                    if first == index {
                        known += u64::from(facts.is_known);
                        seen.extend(facts.stamp.map(|stamp| Seen {
                            file: Stamped {
                                path: found.path.clone(),
                                stamp,
                                digest: facts.digest,
                            },
                            is_known: facts.is_known,
                            is_plain: of.xattrs.is_empty() && of.holes.is_empty(),
                        }));
                    }
                    EntryKind::File {
                        digest: facts.digest,
                        executable: facts.mode & 0o100 != 0,
                    }
                }
            };
            if let Some(first) = links[index] {
                of = EntryAttributes {
                    hard_link_to: Some(small(first)),
                    ..Default::default()
                };
            }
            attributes.push((small(index), of));
            entries.push(Entry {
                path: found.path,
                kind,
            });
        }
        let tree = Tree::new(entries).map_err(|source| CaptureError::Tree { source })?;
        files.retain(|digest, _| digest.size() > 0);
        let attributes = Attributes::new(attributes);
        let parts = attributes.parts();
        if ATTRIBUTES_PARTS_MAX < parts {
            return Err(CaptureError::TooManyParts { parts });
        }
        Ok(Captured {
            tree,
            attributes,
            sources: Sources {
                roots: self.roots,
                files,
            },
            seen,
            known,
            units: Units::new(),
        })
    }

    fn attributes_of(&self, found: &Found) -> EntryAttributes {
        match (&found.kind, self.detail) {
            (FoundKind::Other(EntryKind::Whiteout), _) | (_, Detail::Checkout) => {
                EntryAttributes::default()
            }
            (kind, Detail::Full) => EntryAttributes {
                // All links have the same mode.
                mode: (!matches!(kind, FoundKind::Other(EntryKind::Symlink { .. })))
                    .then_some(found.mode),
                owner: Some(found.owner),
                modified: Some(found.modified),
                hard_link_to: None,
                xattrs: found.xattrs.clone(),
                holes: Vec::new(),
            },
        }
    }
}

/// For each entry, the first entry that is another name of the same thing.
fn hard_links(found: &[Found]) -> Vec<Option<usize>> {
    let mut first_names = BTreeMap::new();
    let link = |(index, found): (usize, &Found)| {
        let node = found.shared_node?;
        let first = *first_names.entry(node).or_insert(index);
        (first != index).then_some(first)
    };
    found.iter().enumerate().map(link).collect()
}

/// An index into a tree as attributes have it.
fn small(index: usize) -> u32 {
    u32::try_from(index).expect("a tree has fewer entries")
}

#[cfg(test)]
mod tests;
