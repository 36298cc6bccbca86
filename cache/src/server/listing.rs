//! A page of a listing, of what is here and what the cold tier has. Pure.

use protocol::message::cache::{ENTRIES_LISTED_MAX, EntrySummary};

/// How many bytes the keys and summaries of a page may have, so that they fit in a frame.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// The page behind the key `after`: of a page of what is here, by key, and whether there are more; and of all
/// that the cold tier has, in no order. What is in both is as it is here.
pub(super) fn merged(
    (mut page, mut more): (Vec<(String, EntrySummary)>, bool),
    mut behind: Vec<(String, EntrySummary)>,
    after: &str,
) -> (Vec<(String, EntrySummary)>, bool) {
    if behind.is_empty() {
        return (page, more);
    }
    let last = page.last().filter(|_| more).map(|(key, _)| key.clone());
    behind.retain(|(key, _)| {
        let is_later = last.as_ref().is_some_and(|last| last < key);
        after < key.as_str() && !is_later
    });
    page.append(&mut behind);
    // The order of equal keys stays: what is here comes first.
    page.sort_by(|(one, _), (other, _)| one.cmp(other));
    page.dedup_by(|later, first| later.0 == first.0);
    let mut bytes = 0;
    let fitting = page.iter().take(ENTRIES_LISTED_MAX as usize);
    let fitting = fitting
        .take_while(|(key, _)| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += key.len() + size_of::<EntrySummary>();
            fits
        })
        .count();
    more |= fitting < page.len();
    page.truncate(fitting);
    (page, more)
}

#[cfg(test)]
mod tests {
    use protocol::time::WallTime;

    use super::*;

    fn listed(keys: &[&str], written: u64) -> Vec<(String, EntrySummary)> {
        let summary = EntrySummary {
            written: WallTime(written),
            used: WallTime(written),
            bytes: 1,
            chunks: 1,
        };
        let keys = keys.iter().map(|key| ((*key).to_owned(), summary.clone()));
        keys.collect()
    }

    fn shown(page: &[(String, EntrySummary)]) -> Vec<(&str, u64)> {
        let entries = page.iter();
        entries
            .map(|(key, summary)| (key.as_str(), summary.written.0))
            .collect()
    }

    #[test]
    fn what_is_here_counts_and_what_is_only_behind_is_added_in_order() {
        let page = (listed(&["b", "d"], 2), false);
        let behind = listed(&["d", "c", "a", "e"], 1);
        let (page, more) = merged(page, behind, "a");
        assert_eq!(shown(&page), [("b", 2), ("c", 1), ("d", 2), ("e", 1)]);
        assert!(!more);
    }

    #[test]
    fn a_page_that_is_not_the_last_ends_where_it_ends_here() {
        let page = (listed(&["b", "d"], 2), true);
        let (page, more) = merged(page, listed(&["c", "e"], 1), "");
        assert_eq!(shown(&page), [("b", 2), ("c", 1), ("d", 2)]);
        assert!(more);
    }

    #[test]
    fn several_keys_of_one_name_behind_are_one() {
        let page = (Vec::new(), false);
        let (page, _) = merged(page, listed(&["a", "a"], 1), "");
        assert_eq!(shown(&page), [("a", 1)]);
    }

    #[test]
    fn a_page_is_no_longer_than_a_frame_and_says_that_there_are_more() {
        let keys: Vec<String> = (0..10_000).map(|at| format!("{at:01000}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut all = 0;
        let mut after = String::new();
        loop {
            let (page, more) = merged((Vec::new(), false), listed(&keys, 1), &after);
            assert!(page.len() < 3200, "{}", page.len());
            all += page.len();
            if !more {
                break;
            }
            after = page.last().unwrap().0.clone();
        }
        assert_eq!(all, keys.len());
    }
}
