//! The bytes of the journal: what a file starts with, how a group of records stands in it, and how a
//! torn end is told from damage.
//!
//! A file starts with 32 bytes: magic (8), version (4), zero (4), the number of its first record (8),
//! checksum of these (8). Then groups follow, each 32 bytes and its records: length of the records in
//! bytes (4), how many they are (4), the number of the first (8), checksum of these (8), checksum of these
//! and the records (8). Numbers are little-endian; a checksum is the first 8 bytes of BLAKE3. The records
//! are lines of JSON.
//!
//! A group is what one sync makes durable. The next is not written before, so only the last can be torn:
//! it ends early, or parts of it were never written and are zero, in whole sectors. JSON holds no zero
//! byte, which is how such a sector is known, and how a flipped bit is told from it.

use std::ops::Range;

/// What a file of facts starts with.
pub(super) const MAGIC_FACTS: [u8; 8] = *b"grjourn\n";
/// What a file that holds a whole state starts with.
pub(super) const MAGIC_STATE: [u8; 8] = *b"grstate\n";
/// The version of both.
pub(super) const VERSION: u32 = 1;
/// Where the version stands in a file.
pub(super) const VERSION_AT: usize = 8;
/// How long the header of a file, and of a group, is.
pub(super) const HEADER_BYTES: usize = 32;
/// The most that a disk writes at once or not at all, in bytes. Disks with larger sectors write several
/// of these at once.
const SECTOR_BYTES: usize = 512;

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wrong {
    /// It starts with something else than the magic, or its header does not match its checksum.
    Header,
    /// It is of a newer version.
    Newer(u32),
    /// Its end was being written when the machine or the program stopped. Everything before is whole.
    Torn,
    /// What was written whole once is not what it was.
    Damaged(&'static str),
}

/// A group of records in the bytes of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Group {
    /// The number of its first record.
    pub first: u64,
    /// How many records it has.
    pub count: u32,
    /// Where the records stand in the file.
    pub records: Range<usize>,
}

/// The header of a file whose first record has the number `first`.
pub(super) fn file_header(magic: [u8; 8], first: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let sum = checksum(&[&header[..24]]);
    header[24..].copy_from_slice(&sum);
    header
}

/// Reads the header of a file: the number of its first record.
pub(super) fn read_file_header(magic: [u8; 8], file: &[u8]) -> Result<u64, Wrong> {
    let header: &[u8; HEADER_BYTES] = file.first_chunk().ok_or(Wrong::Torn)?;
    if header[..8] != magic {
        return Err(Wrong::Header);
    }
    // A newer version may have another header, so its checksum is not looked at.
    let version = number4(&header[VERSION_AT..]);
    if VERSION < version {
        return Err(Wrong::Newer(version));
    }
    if checksum(&[&header[..24]]) != header[24..] {
        return Err(Wrong::Header);
    }
    Ok(number8(&header[16..]))
}

/// The bytes of a group of `count` records, the first of which has the number `first`.
///
/// # Panics
///
/// If the records have 4 GiB: the journal's writer keeps groups far below.
pub(super) fn group(first: u64, count: u32, records: &[u8]) -> Vec<u8> {
    let length = u32::try_from(records.len()).expect("groups are far smaller than 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + records.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&checksum(&[&bytes]));
    let sum = checksum(&[&bytes, records]);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(records);
    bytes
}

/// Reads the group at offset `at` of a file; `None` at its end.
pub(super) fn read_group(file: &[u8], at: usize) -> Result<Option<Group>, Wrong> {
    let rest = &file[at..];
    if rest.is_empty() {
        return Ok(None);
    }
    let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
        return Err(Wrong::Torn);
    };
    let Some((length, count, first)) = read_group_header(header) else {
        let wrong = "the header of a group does not match its checksum";
        return Err(torn_or(wrong, file, at));
    };
    let records = at + HEADER_BYTES..at + HEADER_BYTES + length;
    let Some(found) = file.get(records.clone()) else {
        return Err(Wrong::Torn);
    };
    if checksum(&[&header[..24], found]) != header[24..] {
        let wrong = "records do not match their checksum";
        return Err(if records.end < file.len() {
            Wrong::Damaged(wrong)
        } else {
            torn_or(wrong, file, at)
        });
    }
    Ok(Some(Group {
        first,
        count,
        records,
    }))
}

/// Length, count and first number, if the header is whole.
fn read_group_header(header: &[u8; HEADER_BYTES]) -> Option<(usize, u32, u64)> {
    if checksum(&[&header[..16]]) != header[16..24] {
        return None;
    }
    let length = usize::try_from(number4(header)).ok()?;
    Some((length, number4(&header[4..]), number8(&header[8..])))
}

/// What is wrong with a file whose group at `at` is not whole: its end is torn if sectors of it were
/// never written and nothing whole follows.
fn torn_or(wrong: &'static str, file: &[u8], at: usize) -> Wrong {
    let sector_end = |start: usize| file.len().min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
    let mut start = at;
    let mut unwritten = false;
    while start < file.len() {
        let end = sector_end(start);
        unwritten |= file[start..end].iter().all(|&byte| byte == 0);
        start = end;
    }
    let followed = || {
        (at + 1..file.len()).any(|start| {
            let header = file[start..].first_chunk::<HEADER_BYTES>();
            // A header of zeros is none: its checksum is not zero.
            header.and_then(read_group_header).is_some()
        })
    };
    if unwritten && !followed() {
        Wrong::Torn
    } else {
        Wrong::Damaged(wrong)
    }
}

/// The first 8 bytes of BLAKE3 over `parts`, one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn number4(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("callers pass 4 bytes and more"))
}

fn number8(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("callers pass 8 bytes and more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = file_header(MAGIC_FACTS, 5).to_vec();
        file.extend(group(5, 2, b"{\"a\":1}\n{\"b\":2}\n"));
        file.extend(group(7, 1, &[&[b'x'; 1500][..], b"\n"].concat()));
        file
    }

    fn walk(file: &[u8]) -> Result<Vec<Group>, (usize, Wrong)> {
        read_file_header(MAGIC_FACTS, file).map_err(|wrong| (0, wrong))?;
        let (mut groups, mut at) = (Vec::new(), HEADER_BYTES);
        while let Some(group) = read_group(file, at).map_err(|wrong| (at, wrong))? {
            at = group.records.end;
            groups.push(group);
        }
        Ok(groups)
    }

    #[test]
    fn the_bytes_of_a_file_never_change() {
        let hash = blake3::hash(&sample()).to_string();
        assert_eq!(&hash[..16], GOLDEN);
    }
    const GOLDEN: &str = "8a770e596e572b81";

    #[test]
    fn groups_come_back_in_order() {
        let groups = walk(&sample()).unwrap();
        let firsts: Vec<_> = groups
            .iter()
            .map(|group| (group.first, group.count))
            .collect();
        assert_eq!(firsts, [(5, 2), (7, 1)]);
    }

    #[test]
    fn an_end_that_is_cut_off_or_unwritten_is_torn_wherever_it_is() {
        let file = sample();
        let last = walk(&file).unwrap()[1].records.start - HEADER_BYTES;
        for end in last + 1..file.len() {
            assert_eq!(walk(&file[..end]), Err((last, Wrong::Torn)), "cut at {end}");
        }
        for sector in (last / SECTOR_BYTES)..file.len().div_ceil(SECTOR_BYTES) {
            let mut unwritten = file.clone();
            let start = last.max(sector * SECTOR_BYTES);
            let end = file.len().min((sector + 1) * SECTOR_BYTES);
            unwritten[start..end].fill(0);
            assert_eq!(
                walk(&unwritten),
                Err((last, Wrong::Torn)),
                "sector {sector}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_damage_wherever_it_is() {
        let file = sample();
        for at in 0..file.len() {
            for bit in [0x01, 0x80] {
                let mut flipped = file.clone();
                flipped[at] ^= bit;
                match walk(&flipped) {
                    Err((_, Wrong::Damaged(_) | Wrong::Header | Wrong::Newer(_))) => {}
                    other => panic!("bit {bit:x} of byte {at}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut file = sample();
        file[8] = 9;
        assert_eq!(walk(&file), Err((0, Wrong::Newer(9))));
    }
}
