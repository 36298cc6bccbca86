//! What is known of the files that keys are made of: their digests, and their lines as numbers.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::{
    HistoryError,
    git::{Blobs, CommitFile},
};

/// How long a content may be whose lines are told apart, in bytes: the lines of all versions are kept, and of
/// those of larger files there would be gigabytes.
const LINES_BYTES_MAX: usize = 1 << 20;

/// Contents of files, each read once.
#[derive(Debug)]
pub(super) struct Contents {
    blobs: Blobs,
    /// By what git calls them.
    known: BTreeMap<String, Content>,
    numbers: BTreeMap<Vec<u8>, usize>,
}

/// What is known of a content.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) sha256: [u8; 32],
    /// The numbers of its lines that say something; equal lines have one number, in whatever files. A large
    /// content is one line.
    pub(super) lines: BTreeSet<usize>,
}

impl Contents {
    /// None read yet.
    pub(super) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            known: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// If git does not give it.
    pub(super) fn of(&mut self, file: &CommitFile) -> Result<&Content, HistoryError> {
        if !self.known.contains_key(&file.object) {
            let bytes = self.blobs.read(file)?;
            let content = Content {
                sha256: Sha256::digest(&bytes).into(),
                lines: self.lines(&bytes, &file.object),
            };
            self.known.insert(file.object.clone(), content);
        }
        Ok(&self.known[&file.object])
    }

    fn lines(&mut self, bytes: &[u8], object: &str) -> BTreeSet<usize> {
        if LINES_BYTES_MAX < bytes.len() {
            // No line begins so.
            let whole = self.number(format!("\n{object}").as_bytes());
            return BTreeSet::from([whole]);
        }
        let lines = bytes.split(|&byte| byte == b'\n');
        let lines = lines.map(<[u8]>::trim_ascii).filter(|line| says(line));
        lines.map(|line| self.number(line)).collect()
    }

    /// The number of a text, the same for equal ones.
    pub(super) fn number(&mut self, text: &[u8]) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.numbers.len();
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// Whether a line says more than brackets do.
fn says(line: &[u8]) -> bool {
    line.iter()
        .any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
}
