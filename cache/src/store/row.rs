//! The values of rows, hand-written and versioned: what is kept is read by later programs.

use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    message::cache::{Encoding, Entry},
    name::NAME_BYTES_MAX,
    time::WallTime,
};

use super::key::ChunkKey;
use crate::eviction::{Ages, Standing, Worth};

/// How many distinct chunks the closure of one entry may have: 32 GiB of the smallest chunks that big
/// files are cut into, four times that of usual ones. Its counts change in one batch, in memory.
pub(crate) const CLOSURE_CHUNKS_MAX: u64 = 1 << 18;
/// How many blobs, trees or outlines one entry may name. A frame's worth of empty ones.
const PARTS_MAX: u64 = 1 << 17;

/// The byte that stands before the body of a chunk that is encoded so; `None` if nothing is kept so.
pub(crate) const fn encoding_byte(encoding: Encoding) -> Option<u8> {
    match encoding {
        Encoding::Raw => Some(0),
        Encoding::Zstd => Some(1),
        Encoding::Missing => None,
    }
}

/// What [`encoding_byte`] was made from.
pub(crate) const fn encoding_of(byte: u8) -> Option<Encoding> {
    match byte {
        0 => Some(Encoding::Raw),
        1 => Some(Encoding::Zstd),
        _ => None,
    }
}

/// What is known about a chunk besides its bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fact {
    /// What it takes in the store, in bytes; zero: its bytes were lost, and are taken again when
    /// somebody brings them.
    pub(crate) stored: u64,
    /// How many entries have it in their closures.
    pub(crate) references: u64,
}

impl Fact {
    pub(crate) const fn is_present(&self) -> bool {
        self.stored != 0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"gfac", 1);
        writer.number(self.stored);
        writer.number(self.references);
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, *b"gfac", 1)?;
        let fact = Self {
            stored: reader.number("stored length")?,
            references: reader.number("references")?,
        };
        reader.finish()?;
        Ok(fact)
    }
}

/// The sums over all chunks that are present.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    pub(crate) chunks: u64,
    /// Uncompressed.
    pub(crate) bytes: u64,
    pub(crate) stored: u64,
}

impl Totals {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"gtot", 1);
        writer.number(self.chunks);
        writer.number(self.bytes);
        writer.number(self.stored);
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, *b"gtot", 1)?;
        let totals = Self {
            chunks: reader.number("chunks")?,
            bytes: reader.number("bytes")?,
            stored: reader.number("stored bytes")?,
        };
        reader.finish()?;
        Ok(totals)
    }
}

/// What was counted under one key of a dependency cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Uses {
    pub(crate) restored: u64,
    pub(crate) missed: u64,
    pub(crate) saved: u64,
    pub(crate) bytes_restored: u64,
    pub(crate) restore_millis: u64,
    /// When anything of this was counted last; the start of time in what was written before that was
    /// kept.
    pub(crate) used: WallTime,
}

impl Uses {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"guse", 2);
        writer.number(self.restored);
        writer.number(self.missed);
        writer.number(self.saved);
        writer.number(self.bytes_restored);
        writer.number(self.restore_millis);
        writer.number(self.used.0);
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, is_old) = match Reader::new(bytes, *b"guse", 2) {
            Err(DecodeError::Version { found: 1, .. }) => (Reader::new(bytes, *b"guse", 1)?, true),
            reader => (reader?, false),
        };
        let uses = Self {
            restored: reader.number("restored")?,
            missed: reader.number("missed")?,
            saved: reader.number("saved")?,
            bytes_restored: reader.number("bytes restored")?,
            restore_millis: reader.number("time of restores")?,
            used: match is_old {
                true => WallTime(0),
                false => WallTime(reader.number("last use")?),
            },
        };
        reader.finish()?;
        Ok(uses)
    }
}

/// How an entry was used, and what it is worth: what eviction looks at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Usage {
    /// When it was last read or written.
    pub(crate) used: WallTime,
    pub(crate) worth: Worth,
    pub(crate) standing: Standing,
}

impl Usage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"gusd", 2);
        writer.number(self.used.0);
        writer.number(self.worth.bytes);
        writer.number(self.worth.made_millis);
        writer.number(self.standing.rank);
        writer.byte(self.standing.reads);
        writer.byte(self.standing.is_proved.into());
        writer.finish()
    }

    /// What was written before eviction looked at more than times counts as never read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = match Reader::new(bytes, *b"gusd", 2) {
            Err(DecodeError::Version { found: 1, .. }) => {
                let mut reader = Reader::new(bytes, *b"gusd", 1)?;
                let used = WallTime(reader.number("last use")?);
                reader.finish()?;
                return Ok(Self {
                    used,
                    ..Self::default()
                });
            }
            reader => reader?,
        };
        let usage = Self {
            used: WallTime(reader.number("last use")?),
            worth: Worth {
                bytes: reader.number("bytes")?,
                made_millis: reader.number("time to make")?,
            },
            standing: Standing {
                rank: reader.number("rank")?,
                reads: reader.byte("reads")?,
                is_proved: match reader.byte("probation")? {
                    0 => false,
                    1 => true,
                    _ => return Err(reader.refuse("probation")),
                },
            },
        };
        reader.finish()?;
        Ok(usage)
    }
}

/// How far the queues of eviction have come.
pub(crate) fn encode_ages(ages: Ages) -> Vec<u8> {
    let mut writer = Writer::new(*b"gage", 1);
    writer.number(ages.probation);
    writer.number(ages.proved);
    writer.finish()
}

pub(crate) fn decode_ages(bytes: &[u8]) -> Result<Ages, DecodeError> {
    let mut reader = Reader::new(bytes, *b"gage", 1)?;
    let ages = Ages {
        probation: reader.number("age of the probation")?,
        proved: reader.number("age of the proved")?,
    };
    reader.finish()?;
    Ok(ages)
}

/// The distinct chunks that an entry keeps, ascending. Kept beside the entry, so that what was counted
/// when it came is what is counted back when it goes, whatever has become of its layouts.
pub(crate) fn encode_closure(closure: &[ChunkKey]) -> Vec<u8> {
    let mut writer = Writer::new(*b"gclo", 1);
    writer.number(closure.len() as u64);
    for chunk in closure {
        writer.digest(&chunk.digest());
    }
    writer.finish()
}

pub(crate) fn decode_closure(bytes: &[u8]) -> Result<Vec<ChunkKey>, DecodeError> {
    let mut reader = Reader::new(bytes, *b"gclo", 1)?;
    let count = reader.count("number of chunks", CLOSURE_CHUNKS_MAX)?;
    let mut closure = Vec::with_capacity(count.min(bytes.len() / 33));
    for _ in 0..count {
        let digest = reader.digest("chunk")?;
        let key = ChunkKey::of(&digest).ok_or_else(|| reader.refuse("size of chunk"))?;
        if closure.last().is_some_and(|last| key <= *last) {
            return Err(reader.refuse("order of chunks"));
        }
        closure.push(key);
    }
    reader.finish()?;
    Ok(closure)
}

/// An entry, and the size of its closure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StoredEntry {
    pub(crate) entry: Entry,
    /// How many distinct chunks its closure has.
    pub(crate) chunks: u64,
    /// Their bytes, uncompressed.
    pub(crate) bytes: u64,
}

impl StoredEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"gent", 1);
        writer.number(self.entry.blobs.len() as u64);
        for blob in &self.entry.blobs {
            write_blob(&mut writer, blob);
        }
        for trees in [&self.entry.trees, &self.entry.outlines] {
            writer.number(trees.len() as u64);
            for tree in trees {
                write_blob(&mut writer, &tree.tree);
                write_blob(&mut writer, &tree.attributes);
                write_blob(&mut writer, &tree.layout);
            }
        }
        writer.byte(match self.entry.trust {
            Trust::Untrusted => 0,
            Trust::Team => 1,
            Trust::Protected => 2,
        });
        writer.bytes(self.entry.team.as_str().as_bytes());
        writer.number(self.entry.written.0);
        writer.number(self.chunks);
        writer.number(self.bytes);
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, *b"gent", 1)?;
        let count = reader.count("number of blobs", PARTS_MAX)?;
        let blobs = (0..count).map(|_| read_blob(&mut reader));
        let blobs = blobs.collect::<Result<_, _>>()?;
        let trees = read_trees(&mut reader)?;
        let outlines = read_trees(&mut reader)?;
        let trust = match reader.byte("trust")? {
            0 => Trust::Untrusted,
            1 => Trust::Team,
            2 => Trust::Protected,
            _ => return Err(reader.refuse("trust")),
        };
        let team = reader.bytes("team", NAME_BYTES_MAX as u64)?;
        let team = str::from_utf8(team).ok().and_then(|team| team.parse().ok());
        let entry = Entry {
            blobs,
            trees,
            outlines,
            trust,
            team: team.ok_or_else(|| reader.refuse("team"))?,
            written: WallTime(reader.number("time of writing")?),
        };
        let stored = Self {
            entry,
            chunks: reader.number("number of chunks")?,
            bytes: reader.number("bytes")?,
        };
        reader.finish()?;
        Ok(stored)
    }
}

fn write_blob(writer: &mut Writer, blob: &Blob) {
    writer.digest(&blob.digest);
    writer.number(blob.chunks.len() as u64);
    for chunk in &blob.chunks {
        writer.digest(chunk);
    }
}

fn read_blob(reader: &mut Reader<'_>) -> Result<Blob, DecodeError> {
    let digest = reader.digest("blob")?;
    let count = reader.count("number of chunks", CLOSURE_CHUNKS_MAX)?;
    let chunks: Result<Vec<Digest>, _> = (0..count).map(|_| reader.digest("chunk")).collect();
    Ok(Blob {
        digest,
        chunks: chunks?,
    })
}

fn read_trees(reader: &mut Reader<'_>) -> Result<Vec<TreeRef>, DecodeError> {
    let count = reader.count("number of trees", PARTS_MAX)?;
    let trees = (0..count).map(|_| {
        Ok(TreeRef {
            tree: read_blob(reader)?,
            attributes: read_blob(reader)?,
            layout: read_blob(reader)?,
        })
    });
    trees.collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn blob(bytes: &[u8]) -> Blob {
        Blob {
            digest: Digest::of(bytes),
            chunks: vec![Digest::of(bytes)],
        }
    }

    fn tree(name: &str) -> TreeRef {
        TreeRef {
            tree: blob(format!("{name} tree").as_bytes()),
            attributes: blob(format!("{name} attributes").as_bytes()),
            layout: blob(format!("{name} layout").as_bytes()),
        }
    }

    fn entry() -> StoredEntry {
        StoredEntry {
            entry: Entry {
                blobs: vec![blob(b"snapshot")],
                trees: vec![tree("layer"), tree("source")],
                outlines: vec![tree("outline")],
                trust: Trust::Team,
                team: "red".parse().unwrap(),
                written: WallTime(1_700_000_000_000),
            },
            chunks: 12,
            bytes: 3_456,
        }
    }

    /// Rows survive being read, and are refused when damaged or cut, without a panic. Gives what the
    /// bytes hash to.
    #[track_caller]
    fn check<T: Debug + PartialEq>(
        value: &T,
        encode: impl Fn(&T) -> Vec<u8>,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> String {
        let bytes = encode(value);
        assert_eq!(decode(&bytes).as_ref(), Ok(value));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x81;
            if let Ok(other) = decode(&damaged) {
                assert_eq!(encode(&other), damaged, "two spellings");
            }
        }
        Digest::of(&bytes).to_string()
    }

    #[test]
    fn the_bytes_of_rows_never_change() {
        let fact = Fact {
            stored: 300,
            references: 2,
        };
        let fact = check(&fact, Fact::encode, Fact::decode);
        let totals = Totals {
            chunks: 3,
            bytes: 1_000,
            stored: 500,
        };
        let totals = check(&totals, Totals::encode, Totals::decode);
        let uses = Uses {
            restored: 1,
            missed: 2,
            saved: 3,
            bytes_restored: 4_000,
            restore_millis: 5,
            used: WallTime(1_700_000_000_000),
        };
        let uses = check(&uses, Uses::encode, Uses::decode);
        let usage = Usage {
            used: WallTime(1_700_000_000_000),
            worth: Worth {
                bytes: 5_000,
                made_millis: 60_000,
            },
            standing: Standing {
                rank: 1 << 40,
                reads: 3,
                is_proved: true,
            },
        };
        let usage = check(&usage, Usage::encode, Usage::decode);
        let ages = Ages {
            probation: 5,
            proved: 6,
        };
        let ages = check(&ages, |&ages| encode_ages(ages), decode_ages);
        let mut closure: Vec<_> = [&b"one"[..], b"two", b"three"]
            .iter()
            .map(|bytes| ChunkKey::of(&Digest::of(bytes)).unwrap())
            .collect();
        closure.sort();
        let closure = check(&closure, |c| encode_closure(c), decode_closure);
        let entry = check(&entry(), StoredEntry::encode, StoredEntry::decode);
        assert_eq!([fact, totals, uses, usage, ages, closure, entry], GOLDEN);
    }

    #[test]
    fn counts_from_before_they_had_a_time_are_read() {
        let mut old = Writer::new(*b"guse", 1);
        (1..=5).for_each(|number| old.number(number));
        let uses = Uses::decode(&old.finish()).unwrap();
        assert_eq!((uses.restored, uses.restore_millis), (1, 5));
        assert_eq!(uses.used, WallTime(0));
    }

    #[test]
    fn times_of_use_from_before_there_was_more_are_read() {
        let mut old = Writer::new(*b"gusd", 1);
        old.number(77);
        let usage = Usage::decode(&old.finish()).unwrap();
        let expected = Usage {
            used: WallTime(77),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    const GOLDEN: [&str; 7] = [
        "a6ade035f0b72cf84d0ca0f1237d45944a680fffc8634fe026bee73f47c4052c/8",
        "d6c8a17f31bfc0651c826a88f76dc4941545b369c49a254ea3981be0beebebea/10",
        "1daade80303d8454275827bb55c6766e3f6f2b8994b6b3ca20587b03293b8720/17",
        "3527dc4f25fa0042b1fbd672406c4ce808eb41b8c330e6fcec1392612920f4ed/24",
        "17c41aa32429d7d6b4548de73f866ba9c92d97a39d1e6f35d6cfbe30b5dd111b/7",
        "bd8b99d3b3387137b5d4f9a8b8cd8c7a418a7ddd3df69fba13e8311561077488/105",
        "942f602ca6f0227177a6c088fc3b90cb1e81778ccdabcf11912856788c9d2d6c/692",
    ];
}
