//! What objects of the cold tier are called. Pure.
//!
//! The name of an entry says what a listing of entries says, so that no object is read for one; several
//! objects may be of one key, and the one that counts is trusted furthest and, among those, newest.

use protocol::{
    access::Trust, digest::hex, message::cache::EntrySummary, name::Namespace, time::WallTime,
};

use crate::store::key::ChunkKey;

/// How the names of all chunks start.
pub(super) const CHUNKS: &str = "chunks/";
/// How the names of all entries start.
pub(super) const ENTRIES: &str = "entries/";
/// What stands between a key and what is said of it; no escaped key holds it.
const END_OF_KEY: char = '~';
/// How long a name may be with the prefix of the bucket, in bytes: S3's own limit.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// What the name of an entry says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Title {
    /// Namespace `/` path, as in the store.
    pub(super) row: String,
    pub(super) trust: Trust,
    pub(super) written: WallTime,
    /// Of the closure, uncompressed.
    pub(super) bytes: u64,
    pub(super) chunks: u64,
}

impl Title {
    /// The name of the entry's object.
    pub(super) fn name(&self) -> String {
        let trust = match self.trust {
            Trust::Untrusted => 'u',
            Trust::Team => 't',
            Trust::Protected => 'p',
        };
        let Self { row, bytes, .. } = self;
        let (written, chunks) = (self.written.0, self.chunks);
        format!(
            "{ENTRIES}{}{END_OF_KEY}{trust}-{written}-{bytes}-{chunks}",
            escaped(row)
        )
    }

    /// What [`name`](Self::name) was made from; `None`: it is of something else.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (key, said) = name.strip_prefix(ENTRIES)?.rsplit_once(END_OF_KEY)?;
        let mut said = said.split('-');
        let trust = match said.next()? {
            "u" => Trust::Untrusted,
            "t" => Trust::Team,
            "p" => Trust::Protected,
            _ => return None,
        };
        let mut number = || said.next()?.parse::<u64>().ok();
        let title = Self {
            row: unescaped(key)?,
            trust,
            written: WallTime(number()?),
            bytes: number()?,
            chunks: number()?,
        };
        said.next().is_none().then_some(title)
    }

    /// The path, without the namespace.
    pub(super) fn path(&self) -> &str {
        self.row.split_once('/').map_or("", |(_, path)| path)
    }

    /// What a listing says of an entry whose object was written at `modified`: it is written again when the
    /// entry is used.
    pub(super) fn summary(&self, modified: WallTime) -> EntrySummary {
        EntrySummary {
            written: self.written,
            used: self.written.max(modified),
            bytes: self.bytes,
            chunks: self.chunks,
        }
    }
}

/// How the names start of the entries of `namespace` whose keys start with `prefix`.
pub(super) fn entries(namespace: &Namespace, prefix: &str) -> String {
    format!("{ENTRIES}{}", escaped(&format!("{namespace}/{prefix}")))
}

/// How the names start of the objects of one key.
pub(super) fn entry(row: &str) -> String {
    format!("{ENTRIES}{}{END_OF_KEY}", escaped(row))
}

/// The name of a chunk: in 256 folders, for stores that are made of them.
pub(super) fn chunk(key: &ChunkKey) -> String {
    let hash = hex(key.hash());
    format!("{CHUNKS}{}/{hash}-{}", &hash[..2], key.size())
}

/// The hash of the chunk that an object with this name is; `None`: it is something else.
pub(super) fn chunk_hash(name: &str) -> Option<[u8; 32]> {
    let (_, name) = name.strip_prefix(CHUNKS)?.split_once('/')?;
    let (hash, size) = name.split_once('-')?;
    let _size: u32 = size.parse().ok()?;
    let mut bytes = [0; 32];
    if hash.len() != 2 * bytes.len() || !hash.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The text in letters that every store takes, beginning with what the escaped beginnings of the text are:
/// an escape depends on nothing that follows it. No segment is empty or begins with a dot.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = b'/';
    for &byte in text.as_bytes() {
        let is_plain = match byte {
            b'/' | b'.' => before != b'/',
            b'-' | b'_' | b'=' | b'@' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if is_plain {
            escaped.push(char::from(byte));
        } else {
            escaped.push('!');
            escaped.push_str(&hex(&[byte]));
        }
        before = byte;
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        if byte != b'!' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(16 * high + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn title(row: &str) -> Title {
        Title {
            row: row.to_owned(),
            trust: Trust::Protected,
            written: WallTime(1_795_000_000_000),
            bytes: 12,
            chunks: 3,
        }
    }

    #[test]
    fn a_name_says_what_a_listing_does() {
        let title = title("main/dependency/app/0011/npm-linux-é");
        let name = title.name();
        assert_eq!(
            name,
            "entries/main/dependency/app/0011/npm-linux-!c3!a9~p-1795000000000-12-3"
        );
        assert_eq!(Title::parse(&name), Some(title.clone()));
        assert_eq!(title.path(), "dependency/app/0011/npm-linux-é");
    }

    #[test]
    fn the_name_of_a_chunk_is_known_as_that() {
        let digest = protocol::digest::Digest::of(b"chunk");
        let name = chunk(&ChunkKey::of(&digest).unwrap());
        assert_eq!(chunk_hash(&name).as_ref(), Some(digest.hash()), "{name}");
        assert_eq!(chunk_hash("chunks/00/notes"), None);
        assert_eq!(chunk_hash(&name[..name.len() - 2]), None);
    }

    #[test]
    fn what_is_no_name_of_ours_is_none() {
        for name in [
            "",
            "chunks/00/00-1",
            "entries/main/a",
            "entries/main/a~p-1-2",
            "entries/main/a~p-1-2-3-4",
            "entries/main/a~x-1-2-3",
            "entries/main/a!f~p-1-2-3",
            "entries/main/!ff~p-1-2-3",
        ] {
            assert_eq!(Title::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_key_survives_its_name_and_begins_as_its_beginnings_do(
            key in "[a-c/.~!é -]{0,12}", cut in 0_usize..12,
        ) {
            let row = format!("main/{key}");
            let name = title(&row).name();
            prop_assert_eq!(Title::parse(&name), Some(title(&row)));
            prop_assert!(name.starts_with(&entry(&row)));
            let cut: String = key.chars().take(cut).collect();
            prop_assert!(name.starts_with(&entries(&"main".parse().unwrap(), &cut)));
            for segment in name.split('/') {
                prop_assert!(!segment.is_empty() && !segment.starts_with('.'), "{}", name);
            }
        }
    }
}
