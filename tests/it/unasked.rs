//! Dependency caches that no buildspec asks for, and older ones that do as well.

use std::{path::Path, process::Command};

use tempfile::TempDir;
use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

use crate::levels::has_namespaces;

/// What the commands say of `deps`, which they make if it is not there.
fn said(built: &Built) -> &str {
    built.printed().first().copied().unwrap_or_default()
}

fn build<'a>(farm: &'a Farm, source: &'a TempDir) -> impl Fn(&[&str]) -> Built + 'a {
    |arguments| {
        let arguments = [&["--project", "sample"], arguments].concat();
        let built = farm.build(source.path(), &arguments);
        assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
        built
    }
}

#[test]
fn what_a_lock_file_selects_is_there_for_the_next_build() {
    let farm = Farm::start(FarmPlan {
        workers: 2,
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    let locked = |version: &str| format!("=== app/package-lock.json\n{version}\n");
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  install:
    commands:
      - cd app; cat node_modules/made 2>/dev/null || { mkdir node_modules; date +%N > node_modules/made; echo none; }
=== app/package.json
{}
",
    );
    project::write(source.path(), &locked("1"));
    let build = build(&farm, &source);
    let first = build(&[]);
    assert_eq!(said(&first), "none", "{}", first.stdout);
    let selects = "Cached unasked, by lock file app/package-lock.json (npm): app/node_modules/**/*";
    assert!(first.stdout.contains(selects), "{}", first.stdout);

    let second = build(&[]);
    let made = said(&second).to_owned();
    assert_ne!(made, "none", "{}", second.stdout);
    assert_eq!(said(&build(&["--no-cache"])), "none");
    assert_eq!(said(&build(&[])), made, "that one kept nothing");

    // Another lock file is another key; what the last one gave is better than nothing.
    project::write(source.path(), &locked("2"));
    let other = build(&[]);
    assert_eq!(said(&other), made);
    assert!(
        other.stdout.contains("as there is none `lock-files/"),
        "{}",
        other.stdout
    );
    assert!(
        other.stdout.contains("Saved cache `lock-files/"),
        "{}",
        other.stdout
    );
    let again = build(&[]);
    assert!(
        !again.stdout.contains("as there is none"),
        "{}",
        again.stdout
    );
    assert!(again.stdout.contains("needs no saving"), "{}", again.stdout);
}

#[test]
fn a_source_without_lock_files_has_no_cache() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['test -e node_modules && echo there || { mkdir node_modules; touch node_modules/x; echo none; }']
=== package.json
{}
",
    );
    let build = build(&farm, &source);
    for _ in 0..2 {
        let built = build(&[]);
        assert_eq!(said(&built), "none");
        assert!(!built.stdout.contains("unasked"), "{}", built.stdout);
    }
    let stats = farm.json(&["cache", "stats"]).remove(0);
    assert_eq!(stats["uses"].as_array().map(Vec::len), Some(0), "{stats}");
}

#[test]
fn where_there_is_no_entry_under_the_key_the_newest_that_a_fallback_key_begins_is_restored() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands:
      - cat deps/made 2>/dev/null || echo none
      - mkdir -p deps; echo $KEY > deps/made
cache:
  key: $KEY
  fallback-keys: [other-, $(echo lib)-]
  paths: ['deps/**/*']
",
    );
    let build = build(&farm, &source);
    let with = |key: &str| said(&build(&["--env", &format!("KEY={key}")])).to_owned();
    assert_eq!(with("lib-1"), "none");
    assert_eq!(with("library-1"), "lib-1", "`lib-` begins its key");
    assert_eq!(with("lib-2"), "lib-1", "`lib-` does not begin `library-1`");
    assert_eq!(with("app-1"), "lib-2", "the newest");
    assert_eq!(with("other-1"), "lib-2");
    assert_eq!(
        with("app-2"),
        "other-1",
        "the first fallback key comes first"
    );
    assert_eq!(
        with("lib-1"),
        "lib-1",
        "an entry under the key comes before all"
    );
}

/// Whether this machine has a program, as commands would find it.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    found.is_ok_and(|found| found.status.success())
}

/// Makes what a source has beside its buildspec, with the machine's own tools.
#[track_caller]
fn prepare(source: &Path, script: &str) {
    let mut command = Command::new("sh");
    let made = command.args(["-ec", script]).current_dir(source).output();
    let made = made.unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
}

/// Builds a source twice. The second build finds what the first one made, by what it prints, and what its log
/// says was selected.
#[track_caller]
fn restores(source: &TempDir, selected: &str, (first, second): (&[&str], &[&str])) {
    let farm = Farm::start(FarmPlan::default());
    for printed in [first, second] {
        let built = build(&farm, source)(&[]);
        assert!(built.stdout.contains(selected), "{}", built.stdout);
        for line in printed {
            assert!(built.printed().contains(line), "{line}: {}", built.stdout);
        }
    }
}

#[test]
fn a_second_build_with_npm_finds_its_packages() {
    if !has("npm") {
        testkit::tell("npm is not here, so that its packages are not restored");
        return;
    }
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        r#"
=== buildspec.yml
version: 0.2
phases:
  install: {commands: ['test -d node_modules && echo there || echo none', npm install --offline]}
  build: {commands: ["node -e 'console.log(require(`left`))'"]}
=== package.json
{"name": "app", "version": "1.0.0", "dependencies": {"left": "file:left-1.0.0.tgz"}}
=== left/package.json
{"name": "left", "version": "1.0.0", "main": "left.js"}
=== left/left.js
module.exports = "left is here";
"#,
    );
    prepare(
        source.path(),
        "npm pack ./left >/dev/null; rm -r left; npm install --offline --package-lock-only >/dev/null",
    );
    let selected = "Cached unasked, by lock file package-lock.json (npm): node_modules/**/*";
    let is = "left is here";
    restores(&source, selected, (&["none", is], &["there", is]));
}

#[test]
fn a_second_build_with_cargo_compiles_nothing() {
    if !has("cargo") || !has_namespaces() {
        testkit::tell(
            "cargo in a root of its own is not here, so that what it compiled is not restored",
        );
        return;
    }
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build: {commands: ['cargo build --offline --verbose 2>&1 | sed -n s/^[[:space:]]*//p | cut -d\" \" -f1,2']}
=== Cargo.toml
[package]
name = \"barn\"
version = \"0.1.0\"
edition = \"2021\"
=== src/main.rs
fn main() {}
",
    );
    prepare(source.path(), "cargo generate-lockfile --offline");
    let selected = "Cached unasked, by lock file Cargo.lock (cargo): target/**/*";
    let (first, second) = (&["Compiling barn"], &["Fresh barn"]);
    restores(&source, selected, (first, second));
}

#[test]
fn a_second_build_with_pip_finds_its_environment() {
    let has_pip = || {
        let folder = tempfile::tempdir().unwrap();
        let mut making = Command::new("python3");
        making.args(["-m", "venv"]).arg(folder.path());
        making.output().is_ok_and(|made| made.status.success())
    };
    if !has("python3") || !has_pip() {
        testkit::tell("python3 with venv is not here, so that its packages are not restored");
        return;
    }
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  install:
    commands:
      - test -d .venv && echo there || { echo none; python3 -m venv .venv; }
      - .venv/bin/pip install --no-index --find-links . -r requirements.txt
  build: {commands: [\".venv/bin/python -c 'import right; print(right.IS)'\"]}
=== requirements.txt
right==1.0
=== right.py
IS = 'right is here'
",
    );
    // A wheel is an archive with three more files (PEP 427).
    prepare(
        source.path(),
        r#"python3 - <<'EOF'
import zipfile
of = "right-1.0.dist-info/"
with zipfile.ZipFile("right-1.0-py3-none-any.whl", "w") as wheel:
    wheel.write("right.py")
    wheel.writestr(of + "METADATA", "Metadata-Version: 2.1\nName: right\nVersion: 1.0\n")
    wheel.writestr(of + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(of + "RECORD", f"right.py,,\n{of}METADATA,,\n{of}WHEEL,,\n{of}RECORD,,\n")
EOF
rm right.py"#,
    );
    let selected = "Cached unasked, by lock file requirements.txt (pip): .venv/**/*";
    let is = "right is here";
    restores(&source, selected, (&["none", is], &["there", is]));
}
