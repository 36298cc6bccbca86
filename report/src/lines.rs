//! Sets of line numbers, as ranges: what coverage says line by line is long, and mostly runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Line numbers, each once, in order. Kept as ranges whose ends are included.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub struct Lines {
    ranges: Vec<(u32, u32)>,
}

impl Lines {
    /// How many lines there are.
    pub fn count(&self) -> u64 {
        let counts = self.ranges.iter();
        counts
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ends included, in order, with a gap between any two.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// The lines of either.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all = [self.ranges.as_slice(), other.ranges.as_slice()].concat();
        all.sort_unstable();
        let mut union = Self::default();
        for (first, last) in all {
            union.push(first, last);
        }
        union
    }

    /// The lines that `other` does not have.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        let mut holes = other.ranges.iter().copied().peekable();
        for &(first, last) in &self.ranges {
            let mut next = Some(first);
            while let Some(from) = next {
                while holes.next_if(|hole| hole.1 < from).is_some() {}
                let hole = holes.peek().copied().filter(|hole| hole.0 <= last);
                let Some(hole) = hole else {
                    left.push(from, last);
                    break;
                };
                if from < hole.0 {
                    left.push(from, hole.0 - 1);
                }
                next = hole.1.checked_add(1).filter(|from| *from <= last);
            }
        }
        left
    }

    /// Adds a range that begins no earlier than the last one did.
    fn push(&mut self, first: u32, last: u32) {
        match self.ranges.last_mut() {
            Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
            _ => self.ranges.push((first, last)),
        }
    }
}

impl FromIterator<u32> for Lines {
    /// From lines in any order.
    fn from_iter<T: IntoIterator<Item = u32>>(lines: T) -> Self {
        let mut sorted: Vec<u32> = lines.into_iter().collect();
        sorted.sort_unstable();
        let mut set = Self::default();
        for line in sorted {
            set.push(line, line);
        }
        set
    }
}

impl From<Lines> for Vec<(u32, u32)> {
    fn from(lines: Lines) -> Self {
        lines.ranges
    }
}

impl TryFrom<Vec<(u32, u32)>> for Lines {
    type Error = LinesOutOfOrder;

    fn try_from(ranges: Vec<(u32, u32)>) -> Result<Self, LinesOutOfOrder> {
        let grow = ranges.iter().all(|(first, last)| first <= last);
        let apart = ranges
            .windows(2)
            .all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
        if grow && apart {
            Ok(Self { ranges })
        } else {
            Err(LinesOutOfOrder)
        }
    }
}

/// Ranges that no set of lines has. Whoever kept them wrote something else.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("ranges of lines overlap, touch, or are out of order")]
pub struct LinesOutOfOrder;

impl fmt::Display for Lines {
    /// `4-19, 22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn lines(of: &[u32]) -> Lines {
        of.iter().copied().collect()
    }

    #[test]
    fn runs_are_one_range() {
        let set = lines(&[7, 1, 3, 2, 2, 9]);
        assert_eq!(set.to_string(), "1-3, 7, 9");
        assert_eq!(set.count(), 5);
        assert_eq!(lines(&[u32::MAX, u32::MAX - 1]).count(), 2);
    }

    #[test]
    fn union_and_difference_are_those_of_sets() {
        // All pairs of subsets of six lines.
        let subset = |bits: u32| {
            (0..6)
                .filter(|at| bits >> at & 1 == 1)
                .collect::<BTreeSet<u32>>()
        };
        for a in 0..64 {
            for b in 0..64 {
                let (a, b) = (subset(a), subset(b));
                let (left, right) = (a.iter().copied(), b.iter().copied());
                let (left, right): (Lines, Lines) = (left.collect(), right.collect());
                assert_eq!(left.union(&right), a.union(&b).copied().collect());
                assert_eq!(left.without(&right), a.difference(&b).copied().collect());
            }
        }
    }

    #[test]
    fn kept_ranges_that_are_none_are_refused() {
        for bad in ["[[2,1]]", "[[1,2],[2,3]]", "[[1,2],[3,4]]", "[[5,6],[1,2]]"] {
            assert!(serde_json::from_str::<Lines>(bad).is_err(), "{bad}");
        }
        let set: Lines = serde_json::from_str("[[1,4294967295]]").unwrap();
        assert_eq!(set.count(), u64::from(u32::MAX));
    }
}
