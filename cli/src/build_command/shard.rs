//! Which of the test files a shard of a `build-fanout` runs.
//!
//! Pure. All shards come to the same division by themselves, because each sees all files.

use std::str::FromStr;

use protocol::digest::Digest;

/// How test files are divided among shards.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Strategy {
    /// Sorted by name and cut into runs whose sizes differ by at most one.
    #[default]
    EqualDistribution,
    /// Each file has its shard by a hash of its name, so that a new file moves no other.
    Stability,
}

/// Why a word is no strategy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{word}` is no sharding strategy; there are `equal-distribution` and `stability`")]
pub(super) struct NoStrategy {
    /// The word.
    word: String,
}

impl FromStr for Strategy {
    type Err = NoStrategy;

    fn from_str(word: &str) -> Result<Self, NoStrategy> {
        match word {
            "equal-distribution" => Ok(Self::EqualDistribution),
            "stability" => Ok(Self::Stability),
            _ => Err(NoStrategy {
                word: word.to_owned(),
            }),
        }
    }
}

/// The files of shard `index` of `count`, sorted; a file that is named twice is in one shard once. `index`
/// is less than `count`.
pub(super) fn files_of(
    mut files: Vec<String>,
    strategy: Strategy,
    (index, count): (usize, usize),
) -> Vec<String> {
    files.sort();
    files.dedup();
    match strategy {
        Strategy::EqualDistribution => {
            // The first shards have one file more where it does not come out even.
            let (size, more) = (files.len() / count, files.len() % count);
            let start = index * size + index.min(more);
            let length = size + usize::from(index < more);
            files.into_iter().skip(start).take(length).collect()
        }
        Strategy::Stability => {
            files.retain(|file| shard_of(file, count) == index);
            files
        }
    }
}

/// The shard of a file: the one with the greatest hash together with it. With a shard more, only the files move
/// that the new one gets.
fn shard_of(file: &str, count: usize) -> usize {
    let weight = |shard: &usize| *Digest::of(format!("{shard}\0{file}").as_bytes()).hash();
    (0..count).max_by_key(weight).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count)
            .map(|n| format!("tests/test_{n:03}.py"))
            .collect()
    }

    fn shards(files: &[String], strategy: Strategy, count: usize) -> Vec<Vec<String>> {
        let shard = |index| files_of(files.to_vec(), strategy, (index, count));
        (0..count).map(shard).collect()
    }

    #[test]
    fn equal_distribution_cuts_sorted_names_evenly() {
        let mut files = names(10);
        files.reverse();
        let shards = shards(&files, Strategy::EqualDistribution, 4);
        let sizes: Vec<_> = shards.iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 2, 2]);
        assert_eq!(shards.concat(), names(10), "in order, and each once");
    }

    #[test]
    fn with_fewer_files_than_shards_some_have_none() {
        for strategy in [Strategy::EqualDistribution, Strategy::Stability] {
            let mut all = shards(&names(2), strategy, 5).concat();
            all.sort();
            assert_eq!(all, names(2));
            assert!(shards(&[], strategy, 3).concat().is_empty());
        }
    }

    #[test]
    fn stability_moves_few_files() {
        let before = shards(&names(100), Strategy::Stability, 4);
        assert!(before.iter().all(|shard| 10 < shard.len()), "none is empty");
        let mut files = names(100);
        files.push("tests/a_new_one.py".to_owned());
        let after = shards(&files, Strategy::Stability, 4);
        let stays = before.iter().zip(&after);
        let stays =
            stays.map(|(before, after)| before.iter().filter(|f| after.contains(f)).count());
        assert_eq!(stays.sum::<usize>(), 100, "a new file moves no other");
        // A shard more takes its part from each of the others, and nothing else moves.
        let wider = shards(&names(100), Strategy::Stability, 5);
        for (shard, before) in wider.iter().zip(&before) {
            assert!(shard.iter().all(|file| before.contains(file)));
        }
    }

    #[test]
    fn a_file_that_is_named_twice_runs_once() {
        let files = vec!["a".to_owned(), "a".to_owned()];
        assert_eq!(
            shards(&files, Strategy::EqualDistribution, 2).concat(),
            ["a"]
        );
    }
}
