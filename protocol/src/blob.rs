//! Runs of bytes that are kept as chunks, and trees as three of them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A run of bytes of any length, and the chunks it is kept in.
///
/// Logs, reports, snapshots and the bytes of trees are kept so. Like a layout the chunks are not
/// trusted: whoever puts the bytes together checks them against `digest`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Blob {
    /// What the whole is.
    pub digest: Digest,
    /// The chunks, in order; empty exactly if the blob is empty.
    pub chunks: Vec<Digest>,
}

/// A tree with all that is needed to put it back.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct TreeRef {
    /// The bytes of the [`Tree`](crate::tree::Tree); their digest is the tree's identity.
    pub tree: Blob,
    /// The bytes of its [`Attributes`](crate::attributes::Attributes).
    pub attributes: Blob,
    /// The bytes of its [`Layout`](crate::layout::Layout).
    pub layout: Blob,
}
