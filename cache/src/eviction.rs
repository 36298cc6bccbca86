//! Which dependency caches go when the disk fills up. Pure: last uses in, victims out.
//!
//! Only dependency caches are chosen from: a build can make them again. Sources, snapshots and artifacts
//! belong to builds, and go with them.

use protocol::time::WallTime;

/// A dependency cache that may go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Where it stands.
    pub key: Vec<u8>,
    /// When it was last read or written.
    pub used: WallTime,
}

/// The keys of all candidates in the order in which they should go: least recently used first. How many
/// have to go shows only while they do: what one of them gives back depends on which others share its
/// chunks.
pub fn order(mut candidates: Vec<Candidate>) -> Vec<Vec<u8>> {
    // The key breaks ties, so that equal states give equal choices.
    candidates.sort_by(|a, b| (a.used, &a.key).cmp(&(b.used, &b.key)));
    let keys = candidates.into_iter().map(|candidate| candidate.key);
    keys.collect()
}

/// How many bytes the files of the store may take on their disk.
///
/// `used` is what they take, `free` what the disk has left, of which `kept_free` has other uses. An
/// eighth of what is there for the store stays free besides, so that room is made before writes are
/// refused, and there is some to rewrite files in.
pub fn limit(used: u64, free: u64, kept_free: u64) -> u64 {
    /// The part that stays free, as a divisor.
    const SLACK_DIVISOR: u64 = 8;
    let there_is = used.saturating_add(free).saturating_sub(kept_free);
    there_is - there_is / SLACK_DIVISOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first() {
        let candidate = |key: &str, used: u64| Candidate {
            key: key.as_bytes().to_vec(),
            used: WallTime(used),
        };
        let candidates = vec![
            candidate("fresh", 30),
            candidate("old", 10),
            candidate("older", 5),
            candidate("also old", 10),
        ];
        let expected = ["older", "also old", "old", "fresh"];
        assert_eq!(order(candidates), expected.map(|key| key.as_bytes()));
        assert_eq!(order(vec![]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn of_what_the_disk_has_an_eighth_stays_free() {
        assert_eq!(limit(300, 120, 20), 350);
        assert_eq!(limit(400, 20, 20), 350);
        assert_eq!(limit(0, 10, 20), 0);
        assert_eq!(limit(u64::MAX, u64::MAX, 7), (u64::MAX - 7) / 8 * 7);
    }
}
