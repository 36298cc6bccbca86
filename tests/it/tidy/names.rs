//! Who may name what: libraries behind one module, pure modules without the world, words that are not
//! used in names.

use super::source::{CRATES, none, rust_files};

/// Words that may stand only in the named files. `/` at the end means everything below.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("bincode::", &["protocol/src/codec.rs"]),
    ("rocksdb::", &["cache/src/store.rs", "cache/src/store/"]),
    ("zstd::", &["cache/src/compression.rs"]),
    ("quinn::", &["transport/src/"]),
    (
        "saphyr_parser::",
        &[
            "buildspec/src/yaml.rs",
            "buildspec/src/yaml/",
            "benches/src/buildspec.rs",
        ],
    ),
    ("quick_xml::", &["report/src/xml.rs"]),
    (
        "unsafe ",
        &[
            "worker/src/sandbox.rs",
            "worker/src/sandbox/",
            "cache/src/allocator.rs",
        ],
    ),
    ("println!", &["cli/src/", "benches/src/"]),
    ("eprintln!", &["cli/src/", "benches/src/"]),
    (
        "anyhow",
        &["cli/src/", "tests/it/", "benches/src/", "testkit/src/"],
    ),
];

/// What pure code must not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::env::",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "async fn",
    "tokio::",
];

/// Pure modules of crates that are shells otherwise.
const PURE_MODULES: &[&str] = &[
    "cache/src/chunking.rs",
    "cache/src/eviction.rs",
    "cache/src/eviction/clairvoyant.rs",
    "cache/src/eviction/ghosts.rs",
    "cache/src/eviction/peers.rs",
    "cache/src/eviction/queues.rs",
    "cache/src/eviction/replay.rs",
    "cache/src/eviction/standing.rs",
    "cache/src/eviction/traces.rs",
    "cache/src/hits.rs",
    "cache/src/hits/at_size.rs",
    "cache/src/hits/chart.rs",
    "cache/src/hits/simulated.rs",
    "cache/src/packing.rs",
    "worker/src/source_times.rs",
    "transport/src/reconnect.rs",
    "worker/src/attempt.rs",
    "worker/src/leases.rs",
    "worker/src/secrets/forms.rs",
    "worker/src/secrets/mask.rs",
    "worker/src/secrets/references.rs",
];

/// Words that say nothing, or say what the house has another word for.
const VAGUE: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "manager",
];

#[test]
fn libraries_and_powers_stay_in_their_module() {
    let mut broken = Vec::new();
    for file in rust_files(CRATES) {
        // Tests beside the code may say why they are skipped.
        let of_tests = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
        if file.path.starts_with("tests/it/tidy") || of_tests || file.path == "testkit/src/lib.rs" {
            continue;
        }
        for (word, places) in ONLY_IN {
            let at_home = places.iter().any(|place| {
                file.path == *place || (place.ends_with('/') && file.path.starts_with(place))
            });
            if at_home {
                continue;
            }
            for (number, line) in file.code_lines() {
                let named = line.match_indices(word).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"')
                });
                if named {
                    broken.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    none("named in one place only (see the table)", &broken);
}

#[test]
fn pure_code_names_nothing_of_the_world() {
    let mut broken = Vec::new();
    let pure_crates = rust_files(&["protocol", "buildspec", "scheduler", "report"]);
    let pure_modules = rust_files(&["cache", "transport", "worker"])
        .into_iter()
        .filter(|file| PURE_MODULES.contains(&file.path.as_str()));
    let mut modules = 0;
    for file in pure_crates.into_iter().chain(pure_modules) {
        modules += usize::from(PURE_MODULES.contains(&file.path.as_str()));
        for (number, line) in file.code_lines() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    none("pure code is told the time and given the bytes", &broken);
    assert_eq!(
        modules,
        PURE_MODULES.len(),
        "every pure module of the table exists"
    );
}

#[test]
fn no_file_is_named_after_nothing() {
    let broken: Vec<_> = rust_files(CRATES)
        .into_iter()
        .map(|file| file.path)
        .filter(|path| {
            let stem = path.rsplit('/').next().unwrap().trim_end_matches(".rs");
            VAGUE.contains(&stem)
        })
        .collect();
    none("a file is named after the noun that it serves", &broken);
}
