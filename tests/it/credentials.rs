//! Private repositories: git is let in by a secret, which reaches nobody else.

mod server;
mod several;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project,
};

use self::server::{Server, has_server};
use crate::{
    levels::has_namespaces,
    secrets::{search::search, set},
};

/// What lets git in.
const PASSWORD: &str = "correct-horse-battery";
const LOGIN: &str = "bob:correct-horse-battery";

/// A project that prints the word of its source.
const PRINTS: &str = "version: 0.2\nphases:\n  build:\n    commands:\n      - cat word\n";

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=me", "-c", "user.email=me@example.org"])
        .args(["-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
}

/// A directory of bare repositories as plain files, one called `a.git` with a file `word`.
fn repositories() -> tempfile::TempDir {
    // Not below `/tmp`, of which each phase has its own.
    let directory = tempfile::tempdir_in("/opt").unwrap();
    let work = directory.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet"]);
    project::write(
        &work,
        &format!("=== word\nfirst\n=== buildspec.yml\n{PRINTS}"),
    );
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "first"]);
    let bare = ["clone", "--quiet", "--bare", "work", "a.git"];
    git(directory.path(), &bare);
    git(&directory.path().join("a.git"), &["update-server-info"]);
    directory
}

fn run(farm: &Farm, arguments: &[&str]) -> Built {
    Built::from(farm.client(arguments).output().unwrap())
}

#[track_caller]
fn done(farm: &Farm, arguments: &[&str]) {
    let ran = run(farm, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
}

/// Makes the project `shop` of a repository that `github` lets in.
fn make(farm: &Farm, url: &str, more: &[&str]) {
    let make = ["project", "create", "shop", "--git", url];
    let credential = ["--git-credential", "github"];
    done(farm, &[&make[..], &credential, more].concat());
}

fn build(farm: &Farm) -> Built {
    run(farm, &["build", "--project", "shop"])
}

/// How the first phase of a build ended.
fn message(farm: &Farm, build: &str) -> String {
    let status = farm.status(build);
    let phase = &status["units"][0]["phases"][0];
    assert_eq!(phase["context"]["status_code"], "CLIENT_ERROR", "{status}");
    phase["context"]["message"].as_str().unwrap().to_owned()
}

fn farm_with(login: &str, settings: &str) -> Farm {
    let farm = Farm::start(FarmPlan {
        settings: settings.to_owned(),
        ..FarmPlan::default()
    });
    let built = set(&farm, &["github"], login);
    assert_eq!(built.code, 0, "{}", built.stderr);
    farm
}

/// Whether this machine can do what these tests need.
fn can() -> bool {
    if !has_namespaces() {
        testkit::tell("what git leaves is looked at at level `namespace` only");
        return false;
    }
    has_server()
}

/// A directory with a program in it that stands for another.
fn stand_in(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Notes its arguments, and puts the notes and the settings of the repository into what is checked out.
const RECORDING_GIT: &str = r#"#!/bin/sh
at=/codebuild/output/fetch
printf '%s\n' "$*" >> $at/notes
/usr/bin/env -S PATH=SYSTEM git "$@"
status=$?
case "$*" in *checkout*) cat $at/notes $at/primary/.git/config > $at/primary/notes ;; esac
exit $status
"#;

/// `PATH` without what stands in for others.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin";

#[test]
fn a_private_repository_is_fetched_by_a_secret_that_is_in_no_argument_setting_or_file() {
    if !can() {
        return;
    }
    let repositories = repositories();
    let server = Server::start(repositories.path(), LOGIN, "");
    let bin = repositories.path().join("bin");
    fs::create_dir(&bin).unwrap();
    stand_in(&bin, "git", &RECORDING_GIT.replace("SYSTEM", SYSTEM));
    let settings = format!("[worker]\npath = '{}:{SYSTEM}'\n", bin.display());
    let farm = farm_with(LOGIN, &settings);
    make(&farm, &server.url("a.git"), &["--insecure-ssl", "yes"]);
    let text =
        "version: 0.2\nphases:\n  build:\n    commands:\n      - cat word notes\n      - env\n";
    done(&farm, &["project", "update", "shop", "--buildspec", text]);
    let built = build(&farm);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert!(built.printed().contains(&"first"), "{}", built.stdout);
    assert!(built.stdout.contains("fetch --quiet"), "{}", built.stdout);
    assert!(
        built.stdout.contains("[remote \"origin\"]"),
        "{}",
        built.stdout
    );
    let let_in = server.notes().into_iter().filter(|note| note.1 != "-");
    assert_ne!(let_in.count(), 0, "the server asks for it");
    // The build has no part in it, and so its log is not masked.
    assert!(!built.stdout.contains(PASSWORD), "{}", built.stdout);
    assert!(!built.stdout.contains("***"), "{}", built.stdout);
    assert!(!built.stdout.contains("GRANGE_GIT"), "{}", built.stdout);
    let shown = farm.json(&["project", "show", "shop"]).remove(0);
    assert_eq!(shown["project"]["source"]["git"]["credential"], "github");
    let found = search(farm.directory(), &[PASSWORD.as_bytes().to_vec()]);
    let places: Vec<_> = found.iter().map(|found| &found.place).collect();
    assert!(places.is_empty(), "{places:?}");
}

#[test]
fn who_is_redirected_to_is_given_nothing_and_what_a_server_repeats_is_not_told() {
    if !can() {
        return;
    }
    let repositories = repositories();
    let other = Server::start(repositories.path(), "eve:something-else", "");
    let server = Server::start(repositories.path(), LOGIN, &other.origin());
    let farm = farm_with(LOGIN, "");
    let insecure = ["--insecure-ssl", "yes"];
    make(&farm, &server.url("moved/a.git"), &insecure);
    assert_eq!(build(&farm).code, 1);
    let said = message(&farm, "shop#1");
    assert!(said.starts_with("Git clone failed: https://"), "{said}");
    let notes = server.notes();
    assert!(notes.iter().any(|(_, given)| given != "-"), "{notes:?}");
    let notes = other.notes();
    assert!(!notes.is_empty(), "git went there: {said}");
    assert!(notes.iter().all(|(_, given)| given == "-"), "{notes:?}");

    // One that lets another in tells what it was given.
    let update = ["project", "update", "shop", "--git", &other.url("a.git")];
    let refused = run(&farm, &update);
    assert_eq!(refused.code, 2, "it is the credential of another host");
    assert!(
        refused.stderr.contains("--git-credential NAME"),
        "{}",
        refused.stderr
    );
    let named = ["--git-credential", "github", "--insecure-ssl", "yes"];
    done(&farm, &[&update[..], &named].concat());
    let built = build(&farm);
    assert_eq!(built.code, 1, "{}", built.stdout);
    assert!(other.notes().iter().any(|(_, given)| given != "-"));
    let said = message(&farm, "shop#2");
    for text in [&said, &built.stdout, &built.stderr] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn the_credential_helper_serves_git_inside_the_build() {
    if !can() {
        return;
    }
    let repositories = repositories();
    let server = Server::start(repositories.path(), LOGIN, "");
    let farm = farm_with(LOGIN, "");
    let url = server.url("a.git");
    make(&farm, &url, &["--insecure-ssl", "yes"]);
    let text = |helper: &str| {
        format!(
            "version: 0.2\nenv:\n  git-credential-helper: {helper}\nphases:\n  pre_build:\n    commands:\n      \
             - export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false GIT_SSL_NO_VERIFY=1\n  build:\n    \
             commands:\n      - git clone --quiet {url} /root/other && cat /root/other/word\n      \
             - env | grep ^GRANGE_GIT_PASSWORD\n"
        )
    };
    let with = |helper: &str| {
        let inline = text(helper);
        done(
            &farm,
            &["project", "update", "shop", "--buildspec", &inline],
        );
        build(&farm)
    };
    let yes = with("yes");
    assert_eq!(yes.code, 0, "{}\n{}", yes.stdout, yes.stderr);
    assert_eq!(yes.printed(), ["first", "GRANGE_GIT_PASSWORD_0=***"]);
    let no = with("no");
    assert_eq!(no.code, 1, "{}", no.stdout);
    assert!(!no.printed().contains(&"first"), "{}", no.stdout);
}

#[test]
fn insecure_ssl_is_the_projects_choice() {
    if !can() {
        return;
    }
    let repositories = repositories();
    let server = Server::start(repositories.path(), "", "");
    let farm = Farm::start(FarmPlan::default());
    let url = server.url("a.git");
    done(&farm, &["project", "create", "shop", "--git", &url]);
    assert_eq!(build(&farm).code, 1);
    let said = message(&farm, "shop#1");
    assert!(said.contains("certificate"), "{said}");
    done(
        &farm,
        &["project", "update", "shop", "--insecure-ssl", "yes"],
    );
    let built = build(&farm);
    assert_eq!(built.printed(), ["first"], "{}", built.stdout);
    done(
        &farm,
        &["project", "update", "shop", "--insecure-ssl", "no"],
    );
    assert_eq!(build(&farm).code, 1);
}

#[test]
fn a_credential_that_is_not_there_or_not_of_use_fails_download_source() {
    if !can() {
        return;
    }
    let farm = Farm::start(FarmPlan::default());
    make(&farm, "https://127.0.0.1:1/a.git", &[]);
    let built = build(&farm);
    assert_eq!(built.code, 1, "{}", built.stdout);
    let said = message(&farm, "shop#1");
    assert!(said.contains("ResourceNotFoundException"), "{said}");
    assert_eq!(set(&farm, &["github"], "-----BEGIN KEY-----\nx").code, 0);
    assert_eq!(build(&farm).code, 1);
    let said = message(&farm, "shop#2");
    assert!(said.contains("its credential is a key of ssh"), "{said}");
    let refused = run(
        &farm,
        &[
            "project",
            "update",
            "shop",
            "--git",
            "http://127.0.0.1/a.git",
            "--git-credential",
            "github",
        ],
    );
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("https and ssh"),
        "{}",
        refused.stderr
    );
}

/// Notes its arguments and the keys of its agent, and does here what it is to do elsewhere.
const RECORDING_SSH: &str = r#"#!/bin/sh
{ printf '%s\n' "$*"; ssh-add -L; } >> /codebuild/output/fetch/notes 2>&1
for last; do :; done
PATH=SYSTEM exec sh -c "$last"
"#;

#[test]
fn a_key_of_ssh_is_in_an_agent_and_on_no_disk() {
    let has_ssh = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !has_namespaces() || !has_ssh {
        testkit::cannot("there is no ssh here, or no level `namespace`");
        return;
    }
    let repositories = repositories();
    let key = repositories.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "of-the-test", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let text = fs::read_to_string(&key).unwrap();
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::remove_file(&key).unwrap();
    let bin = repositories.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // git itself has to find the stand-in of ssh, and not its own.
    let of_git = repositories.path().join("of-git");
    fs::create_dir(&of_git).unwrap();
    stand_in(&of_git, "ssh", &RECORDING_SSH.replace("SYSTEM", SYSTEM));
    let path = format!("{}:{SYSTEM}", of_git.display());
    stand_in(&bin, "git", &RECORDING_GIT.replace("SYSTEM", &path));
    let settings = format!("[worker]\npath = '{}:{SYSTEM}'\n", bin.display());
    let farm = farm_with(&text, &settings);
    let at = repositories.path().join("a.git");
    make(
        &farm,
        &format!("ssh://git@example.org{}", at.display()),
        &[],
    );
    let notes = "version: 0.2\nphases:\n  build:\n    commands:\n      - cat word notes\n";
    done(&farm, &["project", "update", "shop", "--buildspec", notes]);
    let built = build(&farm);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    assert!(built.printed().contains(&"first"), "{}", built.stdout);
    assert!(built.stdout.contains(public.trim()), "{}", built.stdout);
    assert!(built.stdout.contains("-oStrictHostKeyChecking=yes"));
    let line = text.lines().nth(2).unwrap();
    let found = search(farm.directory(), &[line.as_bytes().to_vec()]);
    let places: Vec<_> = found.iter().map(|found| &found.place).collect();
    assert!(
        places.is_empty() && !built.stdout.contains(line),
        "{places:?}"
    );
}

#[test]
fn secrets_of_the_project_reach_a_build_whose_source_is_fetched_and_are_not_exported() {
    if !can() {
        return;
    }
    let repositories = repositories();
    let server = Server::start(repositories.path(), LOGIN, "");
    let farm = farm_with(LOGIN, "");
    assert_eq!(set(&farm, &["/app/parameter"], "of-the-parameter").code, 0);
    assert_eq!(
        set(&farm, &["app/object"], r#"{"key":"of-the-object"}"#).code,
        0
    );
    let variables = [
        "--insecure-ssl",
        "yes",
        "--parameter-store",
        "PARAMETER=/app/parameter",
        "--secrets-manager",
        "OBJECT=app/object:key",
    ];
    make(&farm, &server.url("a.git"), &variables);
    let text = "version: 0.2\nenv:\n  exported-variables: [PARAMETER, PLAIN]\nphases:\n  build:\n    commands:\n      \
        - cat word\n      - PLAIN=shown; test \"$PARAMETER\" = of-the-parameter && echo \"$PARAMETER\"\n  \
        post_build:\n    commands:\n      - test \"$OBJECT\" = of-the-object && echo there\n";
    done(&farm, &["project", "update", "shop", "--buildspec", text]);
    let built = build(&farm);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    // What a command spells out is masked in the line that names it, too.
    assert_eq!(built.printed(), ["first", "***", "there"]);
    assert!(!built.stdout.contains("of-the-"), "{}", built.stdout);
    let exported = &farm.status("shop#1")["units"][0]["exported_variables"];
    assert_eq!(*exported, serde_json::json!({"PLAIN": "shown"}));
}
