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
    /// How long it took to make what was restored, in milliseconds, each time anew.
    pub(crate) made_millis: u64,
    /// For how many of the restores that is an estimate from their bytes; all that were counted before
    /// anything else was kept.
    pub(crate) estimated: u64,
}

impl Uses {
    /// Counts a restore that took so many milliseconds, of what was worth so much.
    pub(crate) fn count_restore(&mut self, worth: Worth, millis: u64) {
        self.restored += 1;
        self.bytes_restored = self.bytes_restored.saturating_add(worth.bytes);
        self.restore_millis = self.restore_millis.saturating_add(millis);
        self.made_millis = self.made_millis.saturating_add(worth.saves_millis());
        if worth.made_millis == 0 {
            self.estimated += 1;
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(*b"guse", 3);
        writer.number(self.restored);
        writer.number(self.missed);
        writer.number(self.saved);
        writer.number(self.bytes_restored);
        writer.number(self.restore_millis);
        writer.number(self.used.0);
        writer.number(self.made_millis);
        writer.number(self.estimated);
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let version = match Reader::new(bytes, *b"guse", 3) {
            Err(DecodeError::Version { found, .. }) if matches!(found, 1 | 2) => found,
            _ => 3,
        };
        let mut reader = Reader::new(bytes, *b"guse", version)?;
        let mut uses = Self {
            restored: reader.number("restored")?,
            missed: reader.number("missed")?,
            saved: reader.number("saved")?,
            bytes_restored: reader.number("bytes restored")?,
            restore_millis: reader.number("time of restores")?,
            used: match version {
                1 => WallTime(0),
                _ => WallTime(reader.number("last use")?),
            },
            ..Self::default()
        };
        if version == 3 {
            uses.made_millis = reader.number("time to make")?;
            uses.estimated = reader.number("estimated")?;
        } else if 0 < uses.restored {
            let worth = Worth {
                bytes: uses.bytes_restored,
                made_millis: 0,
            };
            uses.made_millis = worth.saves_millis();
            uses.estimated = uses.restored;
        }
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
mod tests;
