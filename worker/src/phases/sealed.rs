//! Layers of units with secrets: packed into sealed segments, which are stored as the files of a tree, and
//! unpacked for one attempt only.
//!
//! Whatever commands have made of a secret is in there, under names that may be secrets too. So the tree, its
//! attributes and its layout are sealed as the bytes of its files are, under the key of the build.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cache::{
    capture::{CaptureError, Captured, Dialect, capture},
    client::{CacheClient, ReadChunk},
    download::fetch_outline,
    materialize::{ChunkSource, Contents, MaterializeError, Owner, materialize_contents},
    ongoing,
    packing::distinct_files,
    selection::Selection,
};
use protocol::{
    attributes::Attributes,
    blob::TreeRef,
    canonical::{Reader, Writer},
    digest::{Digest, Hasher},
    layout::{Layout, Piece},
    path::TreePath,
    snapshot::Layer,
    tree::Tree,
};
use tokio::sync::mpsc;

use super::{Work, newest, unpacked};
use crate::{
    fault::{Fault, OrFault as _, blocking},
    layers::{LayerFacts, LayerKey, LayerUse, remove},
    secrets::UnitSecrets,
};

/// How many bytes of files a segment holds: as much as a chunk has at most, so that it is read at once.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// The file with what is to be known of all others. By it a sealed layer is told from a dependency cache;
/// one that has a file of this name at `/` does not open in a build with secrets.
const CONTENTS: &str = ".grange-sealed-contents";
/// What the files with the bytes are called, before their numbers.
const SEGMENT: &str = ".grange-sealed-";
/// What is sealed as a layer opens as nothing else.
const CONTENTS_CONTEXT: &[u8] = b"grange layer contents 1";
const SEGMENT_CONTEXT: &str = "grange layer segment 1 ";

const TAG: [u8; 4] = *b"gsly";
const VERSION: u8 = 1;
/// How long each part of the contents may be, in bytes: more than the largest tree takes.
const PART_BYTES_MAX: u64 = 1 << 30;

/// Seals what was captured into files of the directory `to`, and captures these. Blocks.
pub(super) fn seal(
    captured: &Captured,
    secrets: &UnitSecrets,
    to: &Path,
) -> Result<Captured, CaptureError> {
    let failed = |source| CaptureError::List { source };
    remove(to)
        .and_then(|()| fs::create_dir_all(to))
        .map_err(failed)?;
    let files = distinct_files(&captured.tree);
    let mut segments = Segments {
        secrets,
        directory: to,
        layout: Layout::default(),
        known: BTreeMap::new(),
        open: Vec::with_capacity(SEGMENT_BYTES),
        pending: Vec::new(),
    };
    for (number, file) in files.iter().enumerate() {
        segments.layout.files.push(Vec::new());
        segments.add(captured, (number, file)).map_err(failed)?;
    }
    segments.close().map_err(failed)?;
    let tree = captured.tree.encode();
    let digest = Digest::of(&tree);
    let mut writer = Writer::new(TAG, VERSION);
    writer.bytes(&tree);
    writer.bytes(&captured.attributes.encode(&digest));
    writer.bytes(&segments.layout.encode(&digest));
    let sealed = secrets.seal(CONTENTS_CONTEXT, &writer.finish());
    fs::write(to.join(CONTENTS), sealed).map_err(failed)?;
    capture(to, &Selection::All, Dialect::Plain)
}

/// Where the next bytes go.
struct Segments<'a> {
    secrets: &'a UnitSecrets,
    directory: &'a Path,
    layout: Layout,
    /// The segments that there are, by what is in them: equal ones are kept once.
    known: BTreeMap<Digest, u32>,
    /// The bytes of the segment that is not full yet.
    open: Vec<u8>,
    /// Which file has which run of it: number, offset and length.
    pending: Vec<(usize, u32, u32)>,
}

impl Segments<'_> {
    /// Adds the bytes of a file, which have to be what was captured.
    fn add(&mut self, captured: &Captured, (number, file): (usize, &Digest)) -> io::Result<()> {
        let mut read = captured.open(file)?.take(file.size() + 1);
        let mut hasher = Hasher::default();
        loop {
            let before = self.open.len();
            let room = SEGMENT_BYTES - before;
            let wanted = u64::try_from(room).unwrap_or(u64::MAX);
            let length = read.by_ref().take(wanted).read_to_end(&mut self.open)?;
            hasher.update(&self.open[before..]);
            if 0 < length {
                self.pending.push((number, small(before), small(length)));
            }
            if self.open.len() < SEGMENT_BYTES {
                break;
            }
            self.close()?;
        }
        match hasher.finish() == *file {
            true => Ok(()),
            false => Err(io::Error::other("a file changed while it was sealed")),
        }
    }

    /// Seals the segment, and begins the next.
    fn close(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        if ongoing::is_given_up() {
            return Err(io::Error::other("nobody wants it any more"));
        }
        let digest = Digest::of(&self.open);
        let next = small(self.layout.chunks.len());
        let chunk = match self.known.get(&digest) {
            Some(&known) => known,
            None => {
                let sealed = self.secrets.seal(&segment_context(next), &self.open);
                fs::write(self.directory.join(segment_name(next)), sealed)?;
                self.layout.chunks.push(digest);
                self.known.insert(digest, next);
                next
            }
        };
        for (number, offset, length) in self.pending.drain(..) {
            self.layout.files[number].push(Piece {
                chunk,
                offset,
                length,
            });
        }
        self.open.clear();
        Ok(())
    }
}

fn small(value: usize) -> u32 {
    u32::try_from(value).expect("segments are small, and fewer than entries of a tree")
}

fn segment_name(number: u32) -> String {
    format!("{SEGMENT}{number:08}")
}

fn segment_context(number: u32) -> Vec<u8> {
    format!("{SEGMENT_CONTEXT}{number}").into_bytes()
}

/// Whether a tree is that of a sealed layer.
fn is_sealed(tree: &Tree) -> bool {
    let name = TreePath::new(CONTENTS).expect("it is a path");
    tree.find(&name).is_some()
}

/// What a sealed layer has in its directory. Blocks.
fn read_contents(directory: &Path, secrets: &UnitSecrets) -> Result<Contents, Fault> {
    let tried = "open a sealed layer";
    let sealed = fs::read(directory.join(CONTENTS)).or_fault(tried)?;
    let opened = secrets.open(CONTENTS_CONTEXT, &sealed).or_fault(tried)?;
    let mut reader = Reader::new(&opened, TAG, VERSION).or_fault(tried)?;
    let mut part = |what| reader.bytes(what, PART_BYTES_MAX).or_fault(tried);
    let tree = Tree::decode(part("tree")?).or_fault(tried)?;
    let (_, attributes) = Attributes::decode(part("attributes")?).or_fault(tried)?;
    let (_, layout) = Layout::decode(part("layout")?).or_fault(tried)?;
    reader.finish().or_fault(tried)?;
    Ok(Contents {
        tree,
        attributes,
        layout,
    })
}

/// The segments of a layer on this worker's disk.
struct OnDisk {
    directory: PathBuf,
    secrets: Arc<UnitSecrets>,
    /// By what is in them, their numbers.
    numbers: BTreeMap<Digest, u32>,
}

impl ChunkSource for OnDisk {
    async fn send_chunks(
        &self,
        chunks: Vec<Digest>,
        out: mpsc::Sender<ReadChunk>,
    ) -> Result<(), MaterializeError> {
        for (index, digest) in chunks.into_iter().enumerate() {
            let number = self.numbers.get(&digest).copied().unwrap_or_default();
            let path = self.directory.join(segment_name(number));
            let secrets = Arc::clone(&self.secrets);
            let opened = ongoing::spawn_blocking(move || {
                let sealed = fs::read(path)?;
                let opened = secrets.open(&segment_context(number), &sealed);
                let opened = opened.map_err(io::Error::other)?;
                match digest.matches(&opened) {
                    true => Ok(Bytes::copy_from_slice(&opened)),
                    false => Err(io::Error::other("a segment of a layer is another's")),
                }
            });
            let opened = opened.await.unwrap_or_else(|ended| Err(ended.into()));
            let bytes = opened.map_err(|source| MaterializeError::Local { source })?;
            let chunk = ReadChunk {
                index,
                digest,
                bytes_moved: 0,
                bytes,
            };
            if out.send(chunk).await.is_err() {
                // Why is in the result of whoever wrote.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A layer of a unit with secrets, unpacked for this attempt alone; `None`: it is not sealed, and may be
/// shared.
pub(super) async fn open(work: &Work<'_>, layer: &Layer) -> Result<Option<LayerUse>, Fault> {
    let Some(secrets) = work.secrets.as_ref().filter(|_| layer.at.is_none()) else {
        return Ok(None);
    };
    if !names_sealed(work, &layer.tree).await? {
        return Ok(None);
    }
    let key = LayerKey::of(layer);
    let sealed = work.directory.join(format!("sealed-{key}"));
    let opened = work.directory.join(format!("opened-{key}"));
    // A sandbox before may have had it in this attempt.
    for path in [sealed.clone(), opened.clone()] {
        blocking("make room for a layer", move || remove(&path)).await?;
    }
    work.unpack(layer, &sealed).await?;
    let (directory, of) = (sealed.clone(), Arc::clone(secrets));
    let contents = blocking("open a sealed layer", move || {
        read_contents(&directory, &of)
    })
    .await?;
    let facts = LayerFacts {
        bytes: contents.tree.bytes(),
        newest: newest(&contents.attributes),
    };
    let source = OnDisk {
        directory: sealed.clone(),
        secrets: Arc::clone(secrets),
        numbers: (0..)
            .zip(&contents.layout.chunks)
            .map(|(number, digest)| (*digest, number))
            .collect(),
    };
    let options = unpacked(Dialect::Overlay, Owner::Keep);
    let put = Box::pin(materialize_contents(&source, contents, &opened, options));
    put.await.or_fault("unpack a sealed layer")?;
    blocking("remove a sealed layer", move || remove(&sealed)).await?;
    Ok(Some(work.site.layers.own(key, opened, facts)))
}

/// Whether a tree at the cache is that of a sealed layer.
async fn names_sealed(work: &Work<'_>, tree: &TreeRef) -> Result<bool, Fault> {
    let request = async |client: CacheClient| fetch_outline(&client, tree).await;
    let outline = work.cache.with("look at a layer", request).await;
    let (tree, _) = outline.map_err(Fault::of_the_state)?;
    Ok(is_sealed(&tree))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use protocol::secret::{SEAL_KEY_BYTES, SealKey, SecretDelivery};

    use super::*;

    fn secrets(byte: u8) -> UnitSecrets {
        let delivery = SecretDelivery {
            key: SealKey::new([byte; SEAL_KEY_BYTES]),
            secrets: Vec::new(),
        };
        UnitSecrets::new(delivery).unwrap()
    }

    fn all_bytes(directory: &Path) -> Vec<u8> {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .flat_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().as_encoded_bytes().to_vec();
                [name, fs::read(path).unwrap()].concat()
            })
            .collect()
    }

    #[tokio::test]
    async fn a_sealed_layer_shows_nothing_and_opens_to_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let upper = folder.path().join("upper");
        fs::create_dir_all(upper.join("a/hunter2-dir")).unwrap();
        let long: Vec<u8> = (0..3 * SEGMENT_BYTES + 7)
            .map(|at| b"hunter2!"[at % 8])
            .collect();
        fs::write(upper.join("a/long"), &long).unwrap();
        fs::write(upper.join("a/small"), b"hunter2").unwrap();
        fs::write(upper.join("a/empty"), b"").unwrap();
        fs::hard_link(upper.join("a/small"), upper.join("a/twin")).unwrap();
        symlink("hunter2", upper.join("link")).unwrap();
        let captured = capture(&upper, &Selection::All, Dialect::Overlay).unwrap();
        let to = folder.path().join("sealed");
        let sealed = seal(&captured, &secrets(1), &to).unwrap();
        assert!(is_sealed(&sealed.tree) && !is_sealed(&captured.tree));
        let bytes = all_bytes(&to);
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));

        assert!(
            read_contents(&to, &secrets(2)).is_err(),
            "another build's key"
        );
        let secrets = Arc::new(secrets(1));
        let contents = read_contents(&to, &secrets).unwrap();
        assert_eq!(contents.tree, captured.tree);
        assert_eq!(
            contents.layout.chunks.len(),
            2,
            "equal segments are kept once"
        );
        let numbers = (0..).zip(&contents.layout.chunks);
        let source = OnDisk {
            directory: to,
            secrets,
            numbers: numbers.map(|(number, digest)| (*digest, number)).collect(),
        };
        let opened = folder.path().join("opened");
        let options = unpacked(Dialect::Overlay, Owner::Own);
        materialize_contents(&source, contents, &opened, options)
            .await
            .unwrap();
        let again = capture(&opened, &Selection::All, Dialect::Overlay).unwrap();
        assert_eq!(again.tree, captured.tree);
        assert_eq!(fs::read(opened.join("a/long")).unwrap(), long);
        let twin = again.attributes.entries().iter();
        assert!(twin.into_iter().any(|(_, of)| of.hard_link_to.is_some()));
    }
}
