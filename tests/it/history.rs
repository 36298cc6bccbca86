//! What a cache would do for the history of a repository, without a build.

use std::{fs, path::Path};

use serde_json::{Value, json};
use testkit::farm::Built;

use super::{cli::run_in, sources::git};

/// The commits: what is in `requirements.txt`, and in `source`. The first has no lock file, the sixth is the
/// third again. `B` has two lines that `A` has not; `C` has five lines of `B`, one that only `A` has, and four
/// of its own.
const COMMITS: [(&str, &str); 7] = [
    ("", "0"),
    (A, "1"),
    (A, "2"),
    (B, "2"),
    (B, "4"),
    (A, "2"),
    (C, "6"),
];
const A: &str = "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9";
const B: &str = "b0 b1 a2 a3 a4 a5 a6 a7 a8 a9";
const C: &str = "b0 b1 a2 a3 a4 a0 c0 c1 c2 c3";

const PHASES: &str = "version: 0.2\nphases: {build: {commands: [make]}}\n";
const KEY: &str =
    "cache:\n  key: k-$(codebuild-hash-files requirements.txt)\n  paths: ['deps/**/*']\n";

/// A repository with these commits, and its buildspecs: `full.yml` with fallback keys, `exact.yml` without,
/// `none.yml` without a `cache` section.
fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    git(path, &["init", "--quiet"]);
    for (lines, source) in COMMITS {
        if !lines.is_empty() {
            fs::write(path.join("requirements.txt"), lines.replace(' ', "\n")).unwrap();
        }
        fs::write(path.join("source"), source).unwrap();
        git(path, &["add", "."]);
        git(path, &["commit", "--quiet", "-m", source]);
    }
    // Not committed: the buildspec counts as it stands there now.
    let full = format!("{PHASES}{KEY}  fallback-keys: [none-, k-]\n");
    fs::write(path.join("full.yml"), full).unwrap();
    fs::write(path.join("exact.yml"), format!("{PHASES}{KEY}")).unwrap();
    fs::write(path.join("none.yml"), PHASES).unwrap();
    directory
}

/// The newest entry has ten lines: 100 bytes and a second for each.
fn hits(repository: &Path, buildspec: &str, more: &[&str]) -> Built {
    let words = ["bench", "hits", "--repo", ".", "--buildspec", buildspec];
    let supposed = ["--entry-bytes", "1000", "--entry-seconds", "10"];
    let words: Vec<&str> = words.into_iter().chain(supposed).collect();
    let built = run_in(repository, &[&words[..], more].concat());
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    built
}

fn objects(repository: &Path, buildspec: &str) -> Vec<Value> {
    let built = hits(repository, buildspec, &["--json"]);
    let lines = built.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The object of what is looked up, for a cache of so many bytes and what chooses the victims.
#[track_caller]
fn row<'a>(objects: &'a [Value], of: &str, bytes: u64, eviction: &str) -> &'a Value {
    let wanted = |object: &&Value| {
        object["of"] == of && object["cache_bytes"] == bytes && object["eviction"] == eviction
    };
    let found = objects.iter().find(wanted);
    found.unwrap_or_else(|| panic!("{of}, {bytes}, {eviction}: {objects:#?}"))
}

/// What is to come out: of six lookups so many exact, with fallbacks and with chunks; then the same in lines.
#[track_caller]
fn check(row: &Value, requests: [u64; 3], lines: [u64; 3]) {
    let figures = |all: u64, [exact, with_fallbacks, with_chunks]: [u64; 3]| {
        json!({
            "all": all,
            "exact": exact,
            "with_fallbacks": with_fallbacks,
            "with_chunks": with_chunks,
        })
    };
    assert_eq!(row["requests"], figures(6, requests), "{row}");
    let bytes = figures(6000, lines.map(|lines| lines * 100));
    assert_eq!(row["bytes"], bytes, "{row}");
    let millis = figures(60_000, lines.map(|lines| lines * 1000));
    assert_eq!(row["millis"], millis, "{row}");
}

#[test]
fn a_history_finds_what_its_keys_fallback_keys_and_lock_files_have_in_common() {
    let repository = repository();
    let found = objects(repository.path(), "full.yml");
    let head = found.iter().find(|object| object["of"] == "dependencies");
    let expected = json!({
        "of": "dependencies",
        "commits": 7,
        "lookups": 6,
        "entries": 3,
        "bytes": 1600,
        "is_supposed": true,
        "unusable": 1,
        "unread": [],
        "unhashed": 0,
        "entry_bytes": 1000,
        "entry_millis": 10_000,
    });
    assert_eq!(head, Some(&expected));
    // A, A again, B by 8 lines of A, B again, A again, C by 5 lines of B, which was put after A.
    for eviction in ["chosen", "LRU", "clairvoyant"] {
        let row = row(&found, "dependencies", 1600, eviction);
        check(row, [3, 5, 5], [30, 43, 44]);
    }
    let bound = row(&found, "dependencies", 1600, "bound");
    assert_eq!(bound["requests"], json!({"exact": 3}));
    assert_eq!(bound["bytes"], json!({"exact": 3000}));
    // With room for one entry B pushes out A, which comes back by 8 lines of B; C has 4 lines of A.
    let small = row(&found, "dependencies", 1000, "LRU");
    check(small, [2, 5, 5], [20, 40, 40]);
    let small = row(&found, "dependencies", 1000, "clairvoyant");
    assert_eq!(small["requests"]["exact"], 2);
}

#[test]
fn without_fallback_keys_nothing_stands_in_and_chunks_are_there_all_the_same() {
    let repository = repository();
    let found = objects(repository.path(), "exact.yml");
    let all = row(&found, "dependencies", 1600, "chosen");
    check(all, [3, 3, 5], [30, 30, 44]);
}

#[test]
fn without_a_cache_section_the_lock_files_choose() {
    let repository = repository();
    let found = objects(repository.path(), "none.yml");
    assert_eq!(
        found[0]["unusable"], 0,
        "without a lock file there is no cache"
    );
    let all = row(&found, "dependencies", 1600, "chosen");
    check(all, [3, 5, 5], [30, 43, 44]);
}

#[test]
fn what_nobody_knows_of_a_key_is_said() {
    let repository = repository();
    let cache = "cache:\n  key: k-$(date)\n  paths: ['deps/**/*']\n";
    let buildspec = format!("{PHASES}{cache}");
    fs::write(repository.path().join("shell.yml"), buildspec).unwrap();
    let head = &objects(repository.path(), "shell.yml")[0];
    assert_eq!(
        (&head["unhashed"], &head["unread"]),
        (&json!(7), &json!(["k-$(date)"])),
        "{head}"
    );
    let told = hits(repository.path(), "shell.yml", &[]).stdout;
    for part in ["7 look up a key that is made of no files", "`k-$(date)`"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn source_trees_are_measured_file_by_file() {
    let repository = repository();
    let found = objects(repository.path(), "full.yml");
    // Three lock files of 29 bytes, and five sources of one.
    let distinct = 3 * 29 + 5;
    let head = found.iter().find(|object| object["of"] == "sources");
    let expected = json!({
        "of": "sources",
        "commits": 7,
        "lookups": 7,
        "entries": 6,
        "bytes": distinct,
        "is_supposed": false,
    });
    assert_eq!(head, Some(&expected));
    let all = 1 + 6 * 30;
    let row = row(&found, "sources", distinct, "chosen");
    let requests = json!({"all": 7, "exact": 1, "with_fallbacks": 1, "with_chunks": 4});
    assert_eq!(row["requests"], requests, "{row}");
    let bytes = json!({
        "all": all,
        "exact": 30,
        "with_fallbacks": 30,
        "with_chunks": all - distinct,
    });
    assert_eq!(row["bytes"], bytes, "{row}");
}

#[test]
fn people_and_documents_get_tables_and_documents_get_curves() {
    let repository = repository();
    let documents = tempfile::tempdir().unwrap();
    let place = documents.path().join("docs");
    let more = ["--documents", place.to_str().unwrap()];
    let built = hits(repository.path(), "full.yml", &more);
    assert!(
        built.stdout.contains("Nothing was built"),
        "{}",
        built.stdout
    );
    let cells = "50.0 %  71.7 %     73.3 %";
    assert!(built.stdout.contains(cells), "{}", built.stdout);
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap();
    let row = "| chosen | 50.0 | 83.3 | 83.3 | 50.0 | 71.7 | 73.3 | 50.0 | 71.7 | 73.3 |";
    let text = read("hits-repository.md");
    assert!(text.contains(row), "{text}");
    let name = repository.path().file_name().unwrap().to_str().unwrap();
    let command = format!("--repo {name} --commits 7 --buildspec FILE --entry-bytes 1000");
    assert!(text.contains(&command), "{text}");
    for name in ["hits-repository.svg", "hits-repository-sources.svg"] {
        assert!(text.contains(name), "{text}");
        assert!(read(name).contains("<polyline"), "{name}");
    }
}

#[test]
fn what_is_no_repository_or_no_buildspec_is_named() {
    let repository = repository();
    let refused = |words: &[&str], expected: &str| {
        let built = run_in(repository.path(), words);
        assert_eq!(built.code, 2, "{}\n{}", built.stdout, built.stderr);
        assert!(built.stderr.contains(expected), "{}", built.stderr);
    };
    refused(&["bench", "hits", "--repo", "."], "buildspec.yml");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("buildspec.yml"), PHASES).unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    refused(&["bench", "hits", "--repo", elsewhere], "git cannot read");
}
