//! Which crate may use which: the architecture, as a table.

use std::fs;

use super::source::{CRATES, SourceFile, none, root, rust_files};

/// What each crate may depend on inside the workspace. Adding an edge is an architecture change: it
/// takes a line here and a line in `ARCHITECTURE.md`.
const EDGES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("buildspec", &["protocol"]),
    ("scheduler", &["protocol"]),
    ("report", &[]),
    ("transport", &["protocol"]),
    ("cache", &["protocol", "transport"]),
    ("worker", &["protocol", "transport", "cache", "report"]),
    (
        "coordinator",
        &["protocol", "buildspec", "scheduler", "transport", "cache"],
    ),
    (
        "cli",
        &[
            "protocol",
            "buildspec",
            "transport",
            "cache",
            "worker",
            "coordinator",
            "report",
        ],
    ),
    (
        "testkit",
        &[
            "protocol",
            "buildspec",
            "scheduler",
            "transport",
            "cache",
            "worker",
            "coordinator",
        ],
    ),
    (
        "tests",
        &[
            "protocol",
            "buildspec",
            "scheduler",
            "transport",
            "cache",
            "worker",
            "coordinator",
            "testkit",
        ],
    ),
    (
        "benches",
        &[
            "protocol",
            "buildspec",
            "scheduler",
            "transport",
            "cache",
            "worker",
            "coordinator",
            "testkit",
        ],
    ),
];

/// Libraries that may be named in one crate only, and which.
const OWNERS: &[(&str, &str)] = &[
    ("bincode", "protocol"),
    ("quinn", "transport"),
    ("quinn-proto", "transport"),
    ("rustls", "transport"),
    ("rcgen", "transport"),
    ("aws-lc-rs", "transport"),
    ("rocksdb", "cache"),
    ("zstd", "cache"),
    ("fastcdc", "cache"),
    ("saphyr-parser", "buildspec"),
    ("quick-xml", "report"),
    ("encoding_rs", "report"),
    ("axum", "cache"),
    ("object_store", "cache"),
    ("s3s", "testkit"),
    ("s3s-fs", "testkit"),
    ("gix-config", "cache"),
    ("aho-corasick", "worker"),
    ("pem", "transport"),
    ("self_cell", "cache"),
    ("socket2", "transport"),
    ("x509-parser", "transport"),
    ("clap", "cli"),
    ("indicatif", "cli"),
];

/// What the pure crates must not be able to import.
const IMPURE: &[&str] = &[
    "tokio", "quinn", "rocksdb", "rustix", "nix", "axum", "tempfile",
];

fn manifest(name: &str) -> toml::Table {
    let text = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
    text.parse().unwrap()
}

fn dependencies(name: &str, section: &str) -> Vec<String> {
    let manifest = manifest(name);
    let table = manifest.get(section).and_then(|table| table.as_table());
    table.map_or_else(Vec::new, |table| table.keys().cloned().collect())
}

#[test]
fn what_a_crate_depends_on_it_names() {
    let mut broken = Vec::new();
    for name in CRATES {
        let files = rust_files(&[name]);
        for dependency in dependencies(name, "dependencies") {
            let word = dependency.replace('-', "_");
            let is_named = |line: &str| {
                let mut words =
                    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
                words.any(|found| found == word)
            };
            let mut lines = files.iter().flat_map(SourceFile::code_lines);
            if !lines.any(|(_, line)| is_named(line)) {
                broken.push(format!("{name} does not name {dependency}"));
            }
        }
    }
    none("a dependency is there because it is used", &broken);
}

#[test]
fn crates_depend_only_downward() {
    let mut broken = Vec::new();
    for (name, allowed) in EDGES {
        for dependency in dependencies(name, "dependencies") {
            let inside = CRATES.contains(&dependency.as_str());
            if inside && !allowed.contains(&dependency.as_str()) {
                broken.push(format!("{name} may not depend on {dependency}"));
            }
        }
    }
    none("a crate uses crates on lower lines only", &broken);
    assert_eq!(EDGES.len(), CRATES.len(), "every crate has a line");
}

#[test]
fn nothing_that_ships_depends_on_testkit() {
    let ships = CRATES
        .iter()
        .filter(|name| !["testkit", "tests", "benches"].contains(name));
    let broken: Vec<_> = ships
        .filter(|name| dependencies(name, "dependencies").contains(&"testkit".to_owned()))
        .map(|name| format!("{name} depends on testkit"))
        .collect();
    none("what tests share does not ship", &broken);
}

#[test]
fn each_library_is_declared_once_in_the_workspace_manifest() {
    let mut broken = Vec::new();
    for name in CRATES {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let manifest = manifest(name);
            let Some(table) = manifest.get(section).and_then(|table| table.as_table()) else {
                continue;
            };
            for (dependency, value) in table {
                let inherits = value.get("workspace").and_then(toml::Value::as_bool);
                if inherits != Some(true) {
                    broken.push(format!(
                        "{name}/Cargo.toml: {dependency} has a version of its own"
                    ));
                }
            }
        }
    }
    none("versions stand in the workspace manifest", &broken);
}

#[test]
fn each_library_is_named_by_the_crate_that_owns_it() {
    let mut broken = Vec::new();
    for (library, owner) in OWNERS {
        for name in CRATES
            .iter()
            .filter(|name| name != &owner && **name != "benches")
        {
            if dependencies(name, "dependencies").contains(&(*library).to_owned()) {
                broken.push(format!("{name} depends on {library}, which is {owner}'s"));
            }
        }
    }
    none("a library has one owner", &broken);
}

#[test]
fn pure_crates_cannot_reach_the_world() {
    let mut broken = Vec::new();
    for name in ["protocol", "buildspec", "scheduler", "report"] {
        for dependency in dependencies(name, "dependencies") {
            if IMPURE.contains(&dependency.as_str()) {
                broken.push(format!("{name} depends on {dependency}"));
            }
        }
        if !root().join(name).join("clippy.toml").exists() {
            broken.push(format!(
                "{name} has no clippy.toml that bans clocks and disks"
            ));
        }
    }
    none("pure crates have no clock, network, disk or tasks", &broken);
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let broken: Vec<_> = CRATES
        .iter()
        .filter(|name| {
            let manifest = manifest(name);
            let inherits = manifest
                .get("lints")
                .and_then(|lints| lints.get("workspace"));
            inherits.and_then(toml::Value::as_bool) != Some(true)
        })
        .map(|name| format!("{name}/Cargo.toml"))
        .collect();
    none("lints are the workspace's", &broken);
}
