//! Attributes: what else a tree needs to be put back as it was.
//!
//! Attributes are in no key. Each field is optional, and absent means the default of whoever puts the
//! tree back: its own user, the modes 0755 and 0644, the time of materialisation.

use crate::{
    canonical::{DecodeError, Reader, Writer},
    digest::Digest,
    tree::TREE_ENTRIES_MAX,
};

const TAG: [u8; 4] = *b"gatt";
const VERSION: u8 = 1;
/// How long the names of an entry's extended attributes are together, each with a NUL behind it, in bytes; what Linux
/// lists.
const XATTR_NAMES_BYTES_MAX: u64 = 64 * 1024;
/// How many extended attributes an entry may have: as many as can be listed, for no name that is kept is shorter than
/// `user.x`.
const XATTRS_MAX: u64 = XATTR_NAMES_BYTES_MAX / 7;
/// How long the name of an extended attribute may be, in bytes; what Linux allows.
const XATTR_NAME_BYTES_MAX: u64 = 255;
/// How long a value of an extended attribute may be, in bytes; what Linux allows.
const XATTR_BYTES_MAX: u64 = 64 * 1024;
/// How many holes a file may have.
const HOLES_MAX: u64 = 1 << 20;

/// How many extended attributes and holes all entries may have together: two each. The shortest of them take 3 bytes
/// here and 80 in memory; 256 MiB of them would take 7 GB.
pub const ATTRIBUTES_PARTS_MAX: u64 = 2 * TREE_ENTRIES_MAX;

/// An extended attribute: its name and its value.
pub type ExtendedAttribute = (Vec<u8>, Vec<u8>);

/// What is known of one entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EntryAttributes {
    /// Permission bits with set-user-id, set-group-id and sticky: `0..=0o7777`.
    pub mode: Option<u32>,
    /// The numbers of owner and group.
    pub owner: Option<(u32, u32)>,
    /// When the content last changed, in nanoseconds since 1970-01-01 00:00 UTC.
    pub modified: Option<i64>,
    /// The index of the first entry of the tree that this is another name of.
    pub hard_link_to: Option<u32>,
    /// Names and values, sorted by name, each name once.
    pub xattrs: Vec<ExtendedAttribute>,
    /// Offsets and lengths of holes in bytes, ascending, not overlapping.
    pub holes: Vec<(u64, u64)>,
}

impl EntryAttributes {
    const fn parts(&self) -> u64 {
        self.xattrs.len() as u64 + self.holes.len() as u64
    }
}

/// What is known of the entries of one tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// By index into [`Tree::entries`](crate::tree::Tree::entries), ascending; entries of which nothing
    /// is known are left out.
    entries: Vec<(u32, EntryAttributes)>,
}

impl Attributes {
    /// Takes what is known of each entry; `entries` are by index, ascending.
    pub fn new(entries: Vec<(u32, EntryAttributes)>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "indices ascend");
        let known = |(_, of): &(u32, EntryAttributes)| *of != EntryAttributes::default();
        Self {
            entries: entries.into_iter().filter(known).collect(),
        }
    }

    /// What is known, by index, ascending.
    pub fn entries(&self) -> &[(u32, EntryAttributes)] {
        &self.entries
    }

    /// What is known of the entry at `index`; `None` if nothing.
    pub fn get(&self, index: usize) -> Option<&EntryAttributes> {
        let index = u32::try_from(index).ok()?;
        let found = self.entries.binary_search_by_key(&index, |(at, _)| *at);
        found.ok().map(|at| &self.entries[at].1)
    }

    /// How many extended attributes and holes all entries have together; over [`ATTRIBUTES_PARTS_MAX`] nobody decodes
    /// them.
    pub fn parts(&self) -> u64 {
        let parts = self.entries.iter().map(|(_, of)| of.parts());
        parts.sum()
    }

    /// The canonical bytes, for the tree with the digest `tree`.
    pub fn encode(&self, tree: &Digest) -> Vec<u8> {
        let mut writer = Writer::new(TAG, VERSION);
        writer.digest(tree);
        writer.number(self.entries.len() as u64);
        let mut next = 0;
        for (index, attributes) in &self.entries {
            writer.number(u64::from(index - next));
            encode_entry(&mut writer, attributes);
            next = index + 1;
        }
        writer.finish()
    }

    /// Reads canonical bytes; gives the digest of the tree that they are about, too.
    ///
    /// # Errors
    ///
    /// If the bytes are anything but what [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<(Digest, Self), DecodeError> {
        let mut reader = Reader::new(bytes, TAG, VERSION)?;
        let tree = reader.digest("tree digest")?;
        let count = reader.count("number of entries", TREE_ENTRIES_MAX)?;
        let mut entries = Vec::with_capacity(count.min(bytes.len() / 2));
        let mut next = 0_u64;
        let mut parts = 0;
        for _ in 0..count {
            let index = next + reader.count("index", TREE_ENTRIES_MAX)? as u64;
            let known = u32::try_from(index).map_err(|_| reader.refuse("index"))?;
            let of = decode_entry(&mut reader, known)?;
            parts += of.parts();
            if ATTRIBUTES_PARTS_MAX < parts {
                return Err(DecodeError::TooMany {
                    what: "number of extended attributes and holes",
                    found: parts,
                    limit: ATTRIBUTES_PARTS_MAX,
                });
            }
            entries.push((known, of));
            next = index + 1;
        }
        reader.finish()?;
        Ok((tree, Self { entries }))
    }
}

const MODE: u8 = 1;
const OWNER: u8 = 2;
const MODIFIED: u8 = 4;
const HARD_LINK: u8 = 8;
const XATTRS: u8 = 16;
const HOLES: u8 = 32;

fn encode_entry(writer: &mut Writer, of: &EntryAttributes) {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    writer.byte(
        flag(of.mode.is_some(), MODE)
            | flag(of.owner.is_some(), OWNER)
            | flag(of.modified.is_some(), MODIFIED)
            | flag(of.hard_link_to.is_some(), HARD_LINK)
            | flag(!of.xattrs.is_empty(), XATTRS)
            | flag(!of.holes.is_empty(), HOLES),
    );
    if let Some(mode) = of.mode {
        writer.number(u64::from(mode));
    }
    if let Some((user, group)) = of.owner {
        writer.number(u64::from(user));
        writer.number(u64::from(group));
    }
    if let Some(modified) = of.modified {
        writer.signed(modified);
    }
    if let Some(first) = of.hard_link_to {
        writer.number(u64::from(first));
    }
    if !of.xattrs.is_empty() {
        writer.number(of.xattrs.len() as u64);
        for (name, value) in &of.xattrs {
            writer.bytes(name);
            writer.bytes(value);
        }
    }
    if !of.holes.is_empty() {
        writer.number(of.holes.len() as u64);
        let mut end = 0;
        for (offset, length) in &of.holes {
            writer.number(offset - end);
            writer.number(*length);
            end = offset + length;
        }
    }
}

fn decode_entry(reader: &mut Reader<'_>, index: u32) -> Result<EntryAttributes, DecodeError> {
    let flags = reader.byte("fields")?;
    if flags == 0 || flags >= 64 {
        return Err(reader.refuse("fields"));
    }
    let small = |reader: &mut Reader<'_>, what, limit: u64| {
        let found = reader.count(what, limit)?;
        u32::try_from(found).map_err(|_| reader.refuse(what))
    };
    let mut of = EntryAttributes::default();
    if flags & MODE != 0 {
        of.mode = Some(small(reader, "mode", 0o7777)?);
    }
    if flags & OWNER != 0 {
        let user = small(reader, "owner", u64::from(u32::MAX))?;
        of.owner = Some((user, small(reader, "group", u64::from(u32::MAX))?));
    }
    if flags & MODIFIED != 0 {
        of.modified = Some(reader.signed("time")?);
    }
    if flags & HARD_LINK != 0 {
        let first = small(reader, "hard link", u64::from(u32::MAX))?;
        if index <= first {
            return Err(reader.refuse("hard link"));
        }
        of.hard_link_to = Some(first);
    }
    if flags & XATTRS != 0 {
        of.xattrs = decode_xattrs(reader)?;
    }
    if flags & HOLES != 0 {
        of.holes = decode_holes(reader)?;
    }
    Ok(of)
}

fn decode_xattrs(reader: &mut Reader<'_>) -> Result<Vec<ExtendedAttribute>, DecodeError> {
    let count = reader.count("number of extended attributes", XATTRS_MAX)?;
    let mut xattrs: Vec<ExtendedAttribute> = Vec::new();
    for _ in 0..count {
        let name = reader
            .bytes("name of extended attribute", XATTR_NAME_BYTES_MAX)?
            .to_vec();
        let value = reader
            .bytes("extended attribute", XATTR_BYTES_MAX)?
            .to_vec();
        if xattrs.last().is_some_and(|(last, _)| name <= *last) || name.contains(&0) {
            return Err(reader.refuse("order of extended attributes"));
        }
        xattrs.push((name, value));
    }
    if xattrs.is_empty() {
        return Err(reader.refuse("number of extended attributes"));
    }
    Ok(xattrs)
}

fn decode_holes(reader: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, DecodeError> {
    let count = reader.count("number of holes", HOLES_MAX)?;
    let mut holes = Vec::new();
    let mut end = 0_u64;
    for _ in 0..count {
        let offset = end.checked_add(reader.number("hole")?);
        let length = reader.number("length of hole")?;
        let past = offset.and_then(|offset| offset.checked_add(length));
        let (Some(offset), Some(past)) = (offset, past) else {
            return Err(reader.refuse("hole"));
        };
        holes.push((offset, length));
        end = past;
    }
    if holes.is_empty() {
        return Err(reader.refuse("number of holes"));
    }
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Attributes {
        Attributes::new(vec![
            (
                0,
                EntryAttributes {
                    mode: Some(0o4755),
                    owner: Some((0, 1000)),
                    modified: Some(-1),
                    ..Default::default()
                },
            ),
            (1, EntryAttributes::default()),
            (
                7,
                EntryAttributes {
                    hard_link_to: Some(0),
                    xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
                    holes: vec![(4096, 8192), (65536, 4096)],
                    ..Default::default()
                },
            ),
        ])
    }

    #[test]
    fn the_bytes_of_attributes_never_change() {
        let bytes = sample().encode(&Digest::of(b"tree"));
        assert_eq!(Digest::of(&bytes).to_string(), GOLDEN);
    }
    const GOLDEN: &str = "b8c34b836f31cd09f43f1ee535f43cb5b402f9861ab8d6ba49cec39f426d6270/70";

    #[test]
    fn attributes_survive_their_bytes() {
        let tree = Digest::of(b"tree");
        assert_eq!(
            Attributes::decode(&sample().encode(&tree)),
            Ok((tree, sample()))
        );
        assert_eq!(sample().get(7).unwrap().hard_link_to, Some(0));
        assert_eq!(sample().get(1), None);
    }

    /// The shortest names that are kept, until no more of them can be listed.
    fn shortest_names() -> Vec<Vec<u8>> {
        let one = (1..=255_u8).map(|last| vec![last]);
        let two = (1..=255_u8).flat_map(|first| (1..=255).map(move |last| vec![first, last]));
        let mut room = usize::try_from(XATTR_NAMES_BYTES_MAX).unwrap();
        let mut names = Vec::new();
        for rest in one.chain(two) {
            let name = [b"user.".as_slice(), &rest].concat();
            let Some(left) = room.checked_sub(name.len() + 1) else {
                break;
            };
            room = left;
            names.push(name);
        }
        names.sort();
        names
    }

    fn with_xattrs(xattrs: Vec<ExtendedAttribute>) -> Attributes {
        let of = EntryAttributes {
            xattrs,
            ..Default::default()
        };
        Attributes::new(vec![(0, of)])
    }

    #[test]
    fn as_many_extended_attributes_as_can_be_listed_survive_their_bytes() {
        let names = shortest_names();
        assert!(8_000 < names.len());
        let attributes = with_xattrs(names.into_iter().map(|name| (name, Vec::new())).collect());
        let tree = Digest::of(b"tree");
        let bytes = attributes.encode(&tree);
        assert_eq!(Attributes::decode(&bytes), Ok((tree, attributes)));
    }

    #[test]
    fn extended_attributes_are_bounded_in_number_and_length() {
        let refused = |xattrs| {
            let bytes = with_xattrs(xattrs).encode(&Digest::of(b"tree"));
            match Attributes::decode(&bytes) {
                Err(DecodeError::TooMany { what, found, limit }) => Some((what, found, limit)),
                _ => None,
            }
        };
        let one = |name: usize, value: usize| vec![(vec![b'x'; name], vec![b'x'; value])];
        assert_eq!(refused(one(255, 65_536)), None);
        let value = ("extended attribute", 65_537, 65_536);
        assert_eq!(refused(one(255, 65_537)), Some(value));
        let name = ("name of extended attribute", 256, 255);
        assert_eq!(refused(one(256, 0)), Some(name));
        let number = ("number of extended attributes", 9_363, 9_362);
        let many = (0..9_363_u32).map(|name| (name.to_be_bytes().to_vec(), Vec::new()));
        assert_eq!(refused(many.collect()), Some(number));
    }

    #[test]
    fn extended_attributes_and_holes_of_all_entries_are_bounded_together() {
        let holes: Vec<_> = (0..HOLES_MAX).map(|hole| (2 * hole, 1)).collect();
        let of = |index| {
            let holes = holes.clone();
            let of = EntryAttributes {
                holes,
                ..Default::default()
            };
            (index, of)
        };
        let (seven, eight): (Vec<_>, Vec<_>) = ((0..7).map(of).collect(), (0..8).map(of).collect());
        let (seven, eight) = (Attributes::new(seven), Attributes::new(eight));
        assert!(seven.parts() <= ATTRIBUTES_PARTS_MAX && ATTRIBUTES_PARTS_MAX < eight.parts());
        let tree = Digest::of(b"tree");
        assert_eq!(Attributes::decode(&seven.encode(&tree)), Ok((tree, seven)));
        let refused = Attributes::decode(&eight.encode(&tree)).unwrap_err();
        assert!(
            matches!(
                refused,
                DecodeError::TooMany {
                    found: 8_388_608,
                    limit: 8_000_000,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn an_index_over_the_limit_is_refused_and_not_taken_for_the_limit() {
        let of = EntryAttributes {
            mode: Some(0o644),
            ..Default::default()
        };
        let at = |index| {
            let attributes = Attributes::new(vec![(index, of.clone())]);
            Attributes::decode(&attributes.encode(&Digest::of(b"tree"))).map(|_| ())
        };
        assert_eq!(at(4_000_000), Ok(()));
        let (what, limit) = ("index", TREE_ENTRIES_MAX);
        let found = 4_000_001;
        assert_eq!(
            at(4_000_001),
            Err(DecodeError::TooMany { what, found, limit })
        );
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let bytes = sample().encode(&Digest::of(b"tree"));
        for end in 0..bytes.len() {
            assert!(Attributes::decode(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok((tree, attributes)) = Attributes::decode(&damaged) {
                    assert_eq!(attributes.encode(&tree), damaged, "two spellings");
                }
            }
        }
    }
}
