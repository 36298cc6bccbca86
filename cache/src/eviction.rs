//! Which dependency caches go when the disk fills up. Pure: sizes and last uses in, victims out.
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
    /// The bytes of its closure. What goes with it may be less: chunks are shared.
    pub bytes: u64,
}

/// The keys of those that go, in the order in which they should: least recently used first, until
/// their bytes reach `excess`. All of them, if that is not enough; none, if `excess` is zero.
pub fn choose(mut candidates: Vec<Candidate>, excess: u64) -> Vec<Vec<u8>> {
    // The key breaks ties, so that equal states give equal choices.
    candidates.sort_by(|a, b| (a.used, &a.key).cmp(&(b.used, &b.key)));
    let mut freed = 0_u64;
    let enough = candidates.into_iter().take_while(|candidate| {
        let wanted = freed < excess;
        freed = freed.saturating_add(candidate.bytes);
        wanted
    });
    enough.map(|candidate| candidate.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(key: &str, used: u64, bytes: u64) -> Candidate {
        Candidate {
            key: key.as_bytes().to_vec(),
            used: WallTime(used),
            bytes,
        }
    }

    #[track_caller]
    fn check(excess: u64, expected: &[&str]) {
        let candidates = vec![
            candidate("fresh", 30, 10),
            candidate("old", 10, 10),
            candidate("big", 20, 100),
            candidate("also old", 10, 5),
        ];
        let chosen = choose(candidates, excess);
        let expected: Vec<_> = expected.iter().map(|key| key.as_bytes()).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        check(0, &[]);
        check(1, &["also old"]);
        check(5, &["also old"]);
        check(6, &["also old", "old"]);
        check(16, &["also old", "old", "big"]);
    }

    #[test]
    fn all_go_if_that_is_not_enough() {
        check(u64::MAX, &["also old", "old", "big", "fresh"]);
    }
}
