//! `runtime-versions`: selected among what workers offer.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;
use testkit::{
    farm::{Farm, FarmPlan},
    project, wait,
};

use super::building::{Done, build, build_of};

/// A machine with two versions of python and of java, and one of android.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/opt").unwrap();
        for (name, version) in [
            ("python", "3.9.1"),
            ("python", "3.12.4"),
            ("java", "11.0.2"),
            ("java", "17.0.9"),
            ("sdkmanager", "29"),
        ] {
            let bin = directory.path().join(version);
            fs::create_dir(&bin).unwrap();
            let program = bin.join(name);
            fs::write(&program, format!("#!/bin/sh\necho {name} {version}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).unwrap();
        Self { directory }
    }

    /// What a worker offers of some of them.
    fn settings(&self, names: &[&str]) -> String {
        let at = self.directory.path().display();
        let lines = [
            format!("python = {{ \"3.9.1\" = \"{at}/3.9.1\", \"3.12.4\" = \"{at}/3.12.4\" }}\n"),
            format!("java = {{ corretto11 = \"{at}/11.0.2\", corretto17 = \"{at}/17.0.9\" }}\n"),
            format!("android = {{ 29 = \"{at}/29\" }}\n"),
        ];
        let is_named = |line: &String| names.iter().any(|name| line.starts_with(name));
        let lines: String = lines.into_iter().filter(is_named).collect();
        format!("[worker.runtimes]\n{lines}")
    }

    fn build(&self, runtimes: &str, more: &str) -> Done {
        self.build_with("python", runtimes, more)
    }

    /// Runs `program` with what is selected.
    fn build_with(&self, program: &str, runtimes: &str, more: &str) -> Done {
        let lines = format!(
            "{more}phases:\n  install:\n    runtime-versions: {runtimes}\n  build:\n    commands: [{program}]\n"
        );
        let plan = FarmPlan {
            settings: self.settings(&["python", "java", "android"]),
            ..FarmPlan::default()
        };
        build_of(&lines, &[], plan)
    }
}

#[test]
fn a_version_is_exact_or_n_x_or_latest_or_a_flavour_or_a_variable() {
    let machine = Machine::new();
    let flavour = machine.build_with("java", "{java: openjdk11}", "");
    assert_eq!(
        flavour.printed(),
        ["java 11.0.2"],
        "{}",
        flavour.built.stdout
    );
    for (written, wanted, version) in [
        ("3.12.4", "3.12.4", "3.12.4"),
        ("3.x", "3.x", "3.12.4"),
        ("latest", "latest", "3.12.4"),
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
    let said = "Unknown runtime named 'ruby'. There are: android, java, python.";
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

#[test]
fn only_named_runtimes_are_selected_and_what_they_need() {
    let machine = Machine::new();
    let tell = "'sdkmanager; java; command -v python | grep -c /opt || true'";
    let done = machine.build_with(tell, "{android: 29}", "");
    let expected = ["sdkmanager 29", "java 17.0.9", "0"];
    assert_eq!(done.printed(), expected, "{}", done.built.stdout);
    done.at("Selecting 'android' runtime version '29' based on manual selections...");
    done.at("Selecting 'latest' runtime version of 'java', which 'android' needs...");
}

/// Runtimes exclude each other where no worker has both.
#[test]
fn a_conflicting_pair_fails_the_build() {
    let machine = Machine::new();
    let mut farm = Farm::start(FarmPlan {
        workers: 2,
        settings: machine.settings(&["python"]),
        ..FarmPlan::default()
    });
    farm.kill_worker(1);
    let other = machine.settings(&["java"]);
    fs::write(farm.directory().join("grange.toml"), other).unwrap();
    farm.start_worker(1);
    let source = tempfile::tempdir().unwrap();
    let build = |runtimes: &str| {
        let lines = format!(
            "version: 0.2\nphases: {{install: {{runtime-versions: {runtimes}}}, build: {{commands: ['true']}}}}\n"
        );
        project::write_buildspec(source.path(), &lines);
        farm.build(source.path(), &["--project", "sample"])
    };
    wait::until_true("the other worker is there", || {
        build("{java: corretto17}").code == 0
    });
    assert_eq!(build("{python: 3.x}").code, 0);
    let both = build("{python: 3.x, java: corretto17}");
    assert_eq!(both.code, 2, "{}", both.stdout);
    let said = "no worker offers all of the runtimes together";
    assert!(both.stderr.contains(said), "{}", both.stderr);
}
