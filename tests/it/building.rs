//! A build from submission to its end: what its commands see, what it prints, what it publishes.

use std::fs;

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

/// Builds `buildspec` on a farm of one worker, with `arguments`.
fn build(buildspec: &str, arguments: &[&str]) -> Built {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), buildspec);
    farm.build(
        source.path(),
        &[&["--project", "sample"], arguments].concat(),
    )
}

#[test]
fn a_build_shows_its_log_and_gives_its_exit_code_and_artifacts() {
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
      - mkdir -p out/deep
      - echo made > out/deep/file.txt
      - install -m 755 run.sh out/run.sh
      - test $PWD = $CODEBUILD_SRC_DIR && echo the build ran in its source
artifacts:
  files: ['**/*']
  base-directory: out
=== run.sh *
echo running
",
    );
    let to = source.path().join("fetched");
    let built = farm.build(
        source.path(),
        &["--project", "sample", "--artifacts", to.to_str().unwrap()],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed(), ["the build ran in its source"]);
    assert_eq!(
        fs::read_to_string(to.join("deep/file.txt")).unwrap(),
        "made\n"
    );
    assert_eq!(
        fs::read_to_string(to.join("run.sh")).unwrap(),
        "echo running\n"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(to.join("run.sh")).unwrap());
    assert_eq!(mode & 0o777, 0o755);
    for phase in [
        "INSTALL",
        "PRE_BUILD",
        "BUILD",
        "POST_BUILD",
        "UPLOAD_ARTIFACTS",
    ] {
        let line = format!("Phase complete: {phase} State: SUCCEEDED");
        assert!(
            built.stdout.contains(&line),
            "{line} is missing:\n{}",
            built.stdout
        );
    }
}

#[test]
fn variables_and_the_working_directory_carry_from_command_to_command_and_phase_to_phase() {
    let built = build(
        "
version: 0.2
env:
  variables:
    GIVEN: from the buildspec
phases:
  install:
    commands:
      - SET='in \"install\", 2 lines
        or so'
      - mkdir -p inner/most
      - cd inner
      - forgotten() { echo function; }
  build:
    commands:
      - cd most
      - echo ${PWD#$CODEBUILD_SRC_DIR}
      - echo \"$SET\"
      - sh -c 'echo child sees $GIVEN'
      - command -v forgotten || echo functions are forgotten
      - unset GIVEN
      - echo ${GIVEN-unset}
  post_build:
    commands:
      - echo ${GIVEN-still unset}
      - echo ${PWD#$CODEBUILD_SRC_DIR}
",
        &[],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(
        built.printed(),
        [
            "/inner/most",
            "in \"install\", 2 lines or so",
            "child sees from the buildspec",
            "functions are forgotten",
            "unset",
            "still unset",
            "/inner/most",
        ]
    );
}

#[test]
fn in_version_0_1_every_command_starts_afresh() {
    let built = build(
        "
version: 0.1
environment_variables:
  plaintext:
    GIVEN: here
phases:
  build:
    commands:
      - cd /tmp && SET=1
      - test $PWD = $CODEBUILD_SRC_DIR && echo in the source
      - echo ${SET-unset} $GIVEN
",
        &[],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed(), ["in the source", "unset here"]);
}

#[test]
fn what_builds_ask_of_their_surroundings_is_there() {
    let built = build(
        "
version: 0.2
phases:
  build:
    commands:
      - echo $CI $CODEBUILD_BUILD_SUCCEEDING $CODEBUILD_BUILD_NUMBER
      - test -d $HOME && test -w $HOME && echo at home
      - echo $CODEBUILD_BUILD_ID | grep -cE '^sample:[0-9a-f-]{36}$'
      - echo $CODEBUILD_START_TIME | grep -cE '^[0-9]{13}$'
      - echo $GIVEN
",
        &["--env", "GIVEN=by the command"],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(
        built.printed(),
        ["true 1 1", "at home", "1", "1", "by the command"]
    );
}

#[test]
fn a_failed_build_still_runs_finally_and_post_build_and_nothing_else() {
    let built = build(
        "
version: 0.2
phases:
  build:
    commands:
      - echo first
      - exit 3
      - echo never
    finally:
      - echo finally
  post_build:
    commands:
      - echo post_build sees $CODEBUILD_BUILD_SUCCEEDING
",
        &[],
    );
    assert_eq!(built.code, 1, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed(), ["first", "finally", "post_build sees 0"]);
    let why = "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing \
               command: exit 3. Reason: exit status 3";
    assert!(built.stdout.contains(why), "{}", built.stdout);
    assert!(built.stdout.contains("Phase complete: BUILD State: FAILED"));
}

#[test]
fn a_failed_install_ends_the_build_unless_the_buildspec_goes_on() {
    let buildspec = |on_failure: &str| {
        format!(
            "
version: 0.2
phases:
  install:
{on_failure}
    commands: ['false']
  build:
    commands: [echo built]
  post_build:
    commands: [echo posted]
"
        )
    };
    let stopped = build(&buildspec(""), &[]);
    assert_eq!((stopped.code, stopped.printed()), (1, vec![]));
    let went_on = build(&buildspec("    on-failure: CONTINUE"), &[]);
    assert_eq!(
        (went_on.code, went_on.printed()),
        (1, vec!["built", "posted"])
    );
}

#[test]
fn artifacts_that_match_nothing_fail_the_build() {
    let built = build(
        "
version: 0.2
phases:
  build:
    commands: ['true']
artifacts:
  files: [missing.txt]
",
        &[],
    );
    assert_eq!(built.code, 1, "{}", built.stdout);
    assert!(
        built.stdout.contains("no matching artifact paths found"),
        "{}",
        built.stdout
    );
}

#[test]
fn artifacts_are_selected_as_the_buildspec_says() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: ['true']
artifacts:
  base-directory: out
  files: ['**/*']
  exclude-paths: ['**/*.map', secret/**/*]
  discard-paths: yes
=== out/a.js
=== out/a.js.map
=== out/deep/er/b.js
=== out/secret/key
=== other/c.js
",
    );
    let to = source.path().join("fetched");
    let built = farm.build(
        source.path(),
        &["--project", "sample", "--artifacts", to.to_str().unwrap()],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    let mut names: Vec<_> = fs::read_dir(&to)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a.js", "b.js"]);
}

#[test]
fn only_what_the_cache_lacks_is_uploaded_and_ignored_files_stay_at_home() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write(
        source.path(),
        "
=== buildspec.yml
version: 0.2
phases:
  build:
    commands: [ls -A]
=== .gitignore
ignored
=== ignored
=== kept
",
    );
    let run = |arguments: &[&str]| {
        farm.build(
            source.path(),
            &[&["--project", "sample"], arguments].concat(),
        )
    };
    let first = run(&[]);
    assert_eq!(
        first.printed(),
        [".gitignore", "buildspec.yml", "kept"],
        "{}",
        first.stderr
    );
    let second = run(&[]);
    assert!(second.stderr.contains("sent 0 B"), "{}", second.stderr);
}

#[test]
fn git_goes_along_without_its_secrets() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - git -c safe.directory='*' rev-parse HEAD
      - echo $CODEBUILD_RESOLVED_SOURCE_VERSION
      - cat .git/config
",
    );
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .current_dir(source.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "first"]);
    git(&[
        "remote",
        "add",
        "origin",
        "https://me:hunter2@example.org/r.git",
    ]);
    git(&[
        "config",
        "http.https://example.org/.extraheader",
        "AUTHORIZATION: basic hunter2",
    ]);
    git(&[
        "config",
        "url.https://x:hunter2@example.org/.insteadOf",
        "https://example.org/",
    ]);
    git(&["config", "credential.helper", "store --file=hunter2"]);
    let head = git(&["rev-parse", "HEAD"]);
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(built.printed()[..2], [head.as_str(), head.as_str()]);
    assert!(!built.stdout.contains("hunter2"), "{}", built.stdout);
    assert!(
        built.stdout.contains("example.org/r.git"),
        "{}",
        built.stdout
    );
    let without = farm.build(source.path(), &["--project", "sample", "--no-git"]);
    assert_eq!(without.code, 1, "there is no `.git` to ask");
}

#[test]
fn stopping_a_build_ends_its_processes() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let mark = format!("{}", 100_000 + std::process::id());
    project::write_buildspec(
        source.path(),
        &format!(
            "
version: 0.2
phases:
  build:
    commands:
      - nohup setsid sleep {mark} > /dev/null 2>&1 &
      - echo started
      - sleep {mark}
  post_build:
    commands: [echo never]
"
        ),
    );
    let build = farm.submit(source.path(), &["--project", "sample"]);
    testkit::wait::until_true("the build runs", || {
        farm.log(&build).contains("\nstarted\n")
    });
    testkit::wait::until_true("its processes run", || {
        testkit::process::any_with_argument(&mark)
    });
    assert!(farm.client(&["stop", &build]).status().unwrap().success());
    let ended = farm.wait_for_end(&build);
    assert_eq!(ended["summary"]["status"]["ENDED"], "STOPPED", "{ended}");
    testkit::wait::until_true("its processes are gone", || {
        !testkit::process::any_with_argument(&mark)
    });
    assert!(!farm.log(&build).contains("never"));
}

#[test]
fn a_build_over_its_time_limit_is_timed_out() {
    if !testkit::slow_tests() {
        testkit::skip("the shortest time limit is a minute: GRANGE_SLOW_TESTS=1");
        return;
    }
    let farm = Farm::start(FarmPlan {
        settings: "[coordinator]\nbuild_minutes_max = 1\n".to_owned(),
        ..FarmPlan::default()
    });
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands: [sleep 1000]
",
    );
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 5, "{}\n{}", built.stdout, built.stderr);
}

#[test]
fn patterns_and_names_of_artifacts_see_the_variables_of_the_occasion() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(
        source.path(),
        "
version: 0.2
phases:
  build:
    commands:
      - mkdir -p out-$CODEBUILD_BUILD_NUMBER
      - echo made > out-$CODEBUILD_BUILD_NUMBER/file-$CODEBUILD_RESOLVED_SOURCE_VERSION.txt
artifacts:
  files: ['file-$CODEBUILD_RESOLVED_SOURCE_VERSION.txt']
  base-directory: out-$CODEBUILD_BUILD_NUMBER
  name: sample-$CODEBUILD_BUILD_NUMBER
",
    );
    let to = source.path().join("fetched");
    let built = farm.build(
        source.path(),
        &["--project", "sample", "--artifacts", to.to_str().unwrap()],
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    assert!(
        built
            .stdout
            .contains("Expanding base directory path: out-1")
    );
}
