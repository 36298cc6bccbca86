//! `runtime-versions`: selected among what workers offer.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;
use testkit::farm::FarmPlan;

use super::building::{Done, build, build_of};

/// A machine with two versions of python.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/opt").unwrap();
        for version in ["3.9.1", "3.12.4"] {
            let bin = directory.path().join(version);
            fs::create_dir(&bin).unwrap();
            let program = bin.join("python");
            fs::write(&program, format!("#!/bin/sh\necho python {version}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).unwrap();
        Self { directory }
    }

    fn build(&self, runtimes: &str, more: &str) -> Done {
        let at = self.directory.path().display();
        let settings = format!(
            "[worker.runtimes]\npython = {{ \"3.9.1\" = \"{at}/3.9.1\", \"3.12.4\" = \"{at}/3.12.4\" }}\n"
        );
        let lines = format!(
            "{more}phases:\n  install:\n    runtime-versions: {runtimes}\n  build:\n    commands: [python]\n"
        );
        let plan = FarmPlan {
            settings,
            ..FarmPlan::default()
        };
        build_of(&lines, &[], plan)
    }
}

#[test]
fn a_version_is_exact_or_n_x_or_latest_or_a_flavour_or_a_variable() {
    let machine = Machine::new();
    for (written, wanted, version) in [
        ("3.12.4", "3.12.4", "3.12.4"),
        ("3.x", "3.x", "3.12.4"),
        ("latest", "latest", "3.12.4"),
        ("openjdk3.9", "openjdk3.9", "3.9.1"),
        ("$WANTED", "3.9", "3.9.1"),
    ] {
        let done = machine.build(
            &format!("{{python: {written}}}"),
            "env:\n  variables: {WANTED: 3.9}\n",
        );
        assert_eq!(
            done.printed(),
            [format!("python {version}")],
            "{}",
            done.built.stdout
        );
        let selected = done.at(&format!(
            "Selecting 'python' runtime version '{wanted}' based on manual selections..."
        ));
        assert!(done.at("Phase is DOWNLOAD_SOURCE") < selected);
        assert!(selected < done.at("Cache is not defined in the buildspec"));
        assert!(selected < done.at("Entering phase INSTALL"));
    }
}

#[test]
fn what_nobody_offers_fails_at_once_and_names_what_is_offered() {
    let machine = Machine::new();
    let done = machine.build("{python: 3.13}", "");
    assert_eq!(done.built.code, 2, "{}", done.built.stdout);
    let said = "Unknown runtime version named '3.13' of python. This build image has the following \
                versions: 3.9.1, 3.12.4.";
    assert!(done.built.stderr.contains(said), "{}", done.built.stderr);
    let done = machine.build("{ruby: 3.3}", "");
    let said = "Unknown runtime named 'ruby'. There are: python.";
    assert!(done.built.stderr.contains(said), "{}", done.built.stderr);
}

#[test]
fn an_image_that_cannot_select_warns_and_goes_on() {
    let done = build(
        "phases:\n  install:\n    runtime-versions: {python: 3.13}\n  build:\n    commands: [echo built]\n",
    );
    assert_eq!(
        (done.built.code, done.printed()),
        (0, vec!["built"]),
        "{}",
        done.built.stdout
    );
    done.at(
        "Skipping install of runtimes. Runtime version selection is not supported by this build image",
    );
}
