//! Documents that say what the code says.

use std::{collections::BTreeSet, fs};

use super::source::{root, rust_files};

/// What stands between quotes and starts like the name of a metric.
fn metrics_in_code() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in rust_files(&["coordinator", "cache", "worker"]) {
        if file.path.contains("/tests") {
            continue;
        }
        for (_, line) in file.code_lines() {
            let quoted = line.split('"').skip(1).step_by(2);
            names.extend(
                quoted
                    .filter(|text| text.starts_with("grange_"))
                    .map(str::to_owned),
            );
        }
    }
    names
}

#[test]
fn every_metric_is_documented_and_no_other_is() {
    let document = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let quoted = document.split('`').skip(1).step_by(2);
    let documented: BTreeSet<String> = quoted
        .filter(|text| text.starts_with("grange_") && !text.contains('<'))
        .map(str::to_owned)
        .collect();
    let used = metrics_in_code();
    assert!(20 < used.len(), "{used:?}");
    assert_eq!(documented, used);
}
