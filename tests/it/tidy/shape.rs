//! What a file looks like: it says what it is for, fits in a head, and leaves nothing for later.

use super::source::{CRATES, none, root, rust_files};

/// How long a file may be without its tests, in lines.
const LINES_MAX: usize = 500;

#[test]
fn every_file_says_what_it_is_for() {
    let broken: Vec<_> = rust_files(CRATES)
        .into_iter()
        .filter(|file| {
            let first = file.text.lines().next().unwrap_or_default();
            !first.starts_with("//! ") || first.len() < 20
        })
        .map(|file| file.path)
        .collect();
    none("a file opens with `//!` and its purpose", &broken);
}

#[test]
fn files_fit_in_a_head() {
    let broken: Vec<_> = rust_files(CRATES)
        .into_iter()
        .map(|file| (file.without_tests().lines().count(), file.path))
        .filter(|(lines, _)| LINES_MAX < *lines)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    none("a file has at most 500 lines without its tests", &broken);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        "TODO",
        "FIXME",
        "XXX",
        "HACK",
        "todo!(",
        "unimplemented!(",
        "#[ignore",
        "dbg!(",
    ];
    let mut broken = Vec::new();
    for file in rust_files(CRATES) {
        if file.path.starts_with("tests/it/tidy") {
            continue;
        }
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    none(
        "what is missing is an issue, not a note in the code",
        &broken,
    );
}

#[test]
fn tests_wait_for_a_state_and_not_for_a_time() {
    let mut broken = Vec::new();
    for file in rust_files(&["tests", "testkit"]) {
        for (number, line) in file.code_lines() {
            if line.contains("sleep(")
                && !line.contains("poll interval")
                && !file.path.contains("tidy")
            {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none("a test waits for a state (`testkit::wait`)", &broken);
}

#[test]
fn the_map_names_every_crate() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let broken: Vec<_> = CRATES
        .iter()
        .filter(|name| !map.contains(&format!("`{name}`")))
        .map(|name| format!("`{name}` is not in ARCHITECTURE.md"))
        .collect();
    none("the map is whole", &broken);
    assert!(
        map.lines().count() < 250,
        "the map is short enough to be read"
    );
}
