//! Snapshots: all that the next phase needs to go on where the last one stopped.

use std::collections::BTreeMap;

use crate::{
    blob::{Blob, TreeRef},
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    layout::LAYOUT_CHUNKS_MAX,
    path::{PATH_BYTES_MAX, TreePath},
};

/// How many layers a snapshot may have. A unit adds one per phase, one for its source and one per
/// dependency cache; overlayfs takes some hundreds, and their names have to fit in one page.
pub const LAYERS_MAX: u64 = 64;
/// How many variables a snapshot may have.
pub const VARIABLES_MAX: u64 = 10_000;
/// How long a variable's value may be, in bytes: what one string of an environment may have on Linux.
pub const VARIABLE_BYTES_MAX: u64 = 128 * 1024;

const TAG: [u8; 4] = *b"gsna";
const VERSION: u8 = 1;

/// A tree that lies over what is below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layer {
    /// Where its root is in the file system; `None`: at `/`.
    pub at: Option<TreePath>,
    /// What it adds, changes and takes away.
    pub tree: TreeRef,
}

/// The state of a unit between two phases.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// The file system underneath.
    pub base: Digest,
    /// The changes to it, oldest first.
    pub layers: Vec<Layer>,
    /// The exported variables, without those that the farm sets anew for each phase.
    pub variables: BTreeMap<String, Vec<u8>>,
    /// The working directory of the next command, absolute.
    pub directory: Vec<u8>,
}

impl Snapshot {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(TAG, VERSION);
        writer.digest(&self.base);
        writer.number(self.layers.len() as u64);
        for layer in &self.layers {
            writer.bytes(layer.at.as_ref().map_or(&[], TreePath::as_bytes));
            encode_blob(&mut writer, &layer.tree.tree);
            encode_blob(&mut writer, &layer.tree.attributes);
            encode_blob(&mut writer, &layer.tree.layout);
        }
        writer.number(self.variables.len() as u64);
        for (name, value) in &self.variables {
            writer.bytes(name.as_bytes());
            writer.bytes(value);
        }
        writer.bytes(&self.directory);
        writer.finish()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but what [`encode`](Self::encode) gives for some snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, TAG, VERSION)?;
        let base = reader.digest("base")?;
        let count = reader.count("number of layers", LAYERS_MAX)?;
        let layers = (0..count)
            .map(|_| decode_layer(&mut reader))
            .collect::<Result<_, _>>()?;
        let count = reader.count("number of variables", VARIABLES_MAX)?;
        let mut variables = BTreeMap::new();
        for _ in 0..count {
            let name = reader
                .bytes("name of variable", VARIABLE_BYTES_MAX)?
                .to_vec();
            let name = String::from_utf8(name).map_err(|_| reader.refuse("name of variable"))?;
            let value = reader.bytes("variable", VARIABLE_BYTES_MAX)?.to_vec();
            if variables
                .last_key_value()
                .is_some_and(|(last, _)| name <= *last)
            {
                return Err(reader.refuse("order of variables"));
            }
            variables.insert(name, value);
        }
        let directory = reader.bytes("directory", PATH_BYTES_MAX as u64)?.to_vec();
        reader.finish()?;
        Ok(Self {
            base,
            layers,
            variables,
            directory,
        })
    }
}

fn encode_blob(writer: &mut Writer, blob: &Blob) {
    writer.digest(&blob.digest);
    writer.number(blob.chunks.len() as u64);
    for chunk in &blob.chunks {
        writer.digest(chunk);
    }
}

fn decode_layer(reader: &mut Reader<'_>) -> Result<Layer, DecodeError> {
    let at = match reader.bytes("place of layer", PATH_BYTES_MAX as u64)? {
        [] => None,
        at => Some(TreePath::new(at).map_err(|_| reader.refuse("place of layer"))?),
    };
    let tree = TreeRef {
        tree: decode_blob(reader)?,
        attributes: decode_blob(reader)?,
        layout: decode_blob(reader)?,
    };
    Ok(Layer { at, tree })
}

fn decode_blob(reader: &mut Reader<'_>) -> Result<Blob, DecodeError> {
    let digest = reader.digest("blob")?;
    let count = reader.count("number of chunks", LAYOUT_CHUNKS_MAX)?;
    // Not reserved ahead: each chunk takes 33 bytes of input, the count might be a lie.
    let mut chunks = Vec::new();
    for _ in 0..count {
        chunks.push(reader.digest("chunk of blob")?);
    }
    Ok(Blob { digest, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Snapshot {
        let blob = |text: &str| Blob {
            digest: Digest::of(text.as_bytes()),
            chunks: vec![Digest::of(text.as_bytes())],
        };
        let tree = |name: &str| TreeRef {
            tree: blob(name),
            attributes: blob("attributes"),
            layout: blob("layout"),
        };
        Snapshot {
            base: Digest::of(b"bookworm"),
            layers: vec![
                Layer {
                    at: Some(TreePath::new("codebuild/output/src").unwrap()),
                    tree: tree("source"),
                },
                Layer {
                    at: None,
                    tree: tree("install"),
                },
            ],
            variables: BTreeMap::from([
                ("A".to_owned(), b"1\n2".to_vec()),
                ("B".to_owned(), b"\xff".to_vec()),
            ]),
            directory: b"/opt".to_vec(),
        }
    }

    #[test]
    fn the_bytes_of_a_snapshot_never_change() {
        assert_eq!(Digest::of(&sample().encode()).to_string(), GOLDEN);
    }
    const GOLDEN: &str = "b015943a109919f65742bef6175b9803aaddd93902488d6d8ed6bddb91d0e002/479";

    #[test]
    fn a_snapshot_survives_its_bytes() {
        assert_eq!(Snapshot::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Snapshot::decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x80;
            if let Ok(snapshot) = Snapshot::decode(&damaged) {
                assert_eq!(snapshot.encode(), damaged, "two spellings");
            }
        }
    }
}
