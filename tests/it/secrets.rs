//! Secrets: a build prints its own in every form, and they are found nowhere but where they belong.

pub(crate) mod search;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use testkit::{
    farm::{Built, Farm, FarmPlan},
    project, wait,
};

use self::search::{Found, search};
use crate::levels::has_namespaces;

/// With all that shells, URLs and JSON treat specially.
const TOKEN: &str = "Tr0ub4dor &3/\"x\"=+$q'";
/// One of several lines.
const PEM: &str =
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----";
/// In a JSON object.
const PASSWORD: &str = "hunter2-of-the-object";
/// What is stored on purpose, so that the search is known to find what is there.
const CONTROL: &str = "control-value-that-is-stored";

/// Prints the secrets in every form, one name before each.
const PRINTS: &str = r#"
version: 0.2
env:
  shell: bash
  parameter-store: {TOKEN: /app/token}
  secrets-manager: {PEM: app/pem, PASSWORD: 'app/object:pass', OBJECT: app/object}
  exported-variables: [DERIVED, ENCODED, PLAIN]
phases:
  install:
    commands:
      - echo "plain $TOKEN end"
      - printf '%s' "$TOKEN" | dd bs=1 2>/dev/null; echo
      - printf '%.7s' "$TOKEN"; sleep 0.3; printf '%s\n' "${TOKEN:7}"
      - for x in '' x xx; do printf '%s%sy' "$x" "$TOKEN" | base64 -w0; echo; done
      - for x in '' x xx; do printf '%s%s' "$x" "$TOKEN" | base64 -w0 | tr '+/' '-_'; echo; done
      - printf '%s' "$PEM" | base64 -w 19
      - echo "$PASSWORD and $OBJECT"
  pre_build:
    commands:
      - url=$(printf '%s' "$TOKEN" | sed 's/ /%20/g; s/&/%26/g; s,/,%2F,g; s/"/%22/g; s/=/%3D/g; s/+/%2B/g; s/\$/%24/g'); echo "u=${url//\'/%27}&z"
      - printf '%s' "$TOKEN" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g'; echo
      - json=$(printf '%s' "$TOKEN" | sed 's/"/\\"/g'); printf '{"t":"%s"}\n' "$json"
      - printf '%q\n' "$TOKEN" "$PEM"
      - declare -p TOKEN PEM
      - export -p
      - env
      - echo "$PEM"
      - echo "$PEM" | tail -n 2
  build:
    commands:
      - set -x; true "$TOKEN" "$PEM" "$PASSWORD"; set +x
      - sh -xc 'true "$TOKEN" "$PEM"' 2>&1
      - ls "/$TOKEN" || true
      - PLAIN=control-that-is-exported DERIVED="https://user:$TOKEN@host" ENCODED=$(printf 'user:%s' "$TOKEN" | base64 -w0)
      - echo "$TOKEN" > /root/kept; mkdir -p "/opt/$PASSWORD"; echo "$PEM" > "/opt/$PASSWORD/pem"
      - mkdir -p out cached; echo clean > out/clean; echo clean > cached/clean
      - for n in $(seq 200); do echo control-value-that-is-stored; done > out/control
      - mkdir other; echo clean > other/clean
      - printf '<testsuite><testcase name="t"><failure>%s</failure></testcase></testsuite>' "$PASSWORD" > report.xml
  post_build:
    commands:
      - test "$DERIVED" = "https://user:$TOKEN@host" && echo variables carry
      - test "$ENCODED" = "$(printf 'user:%s' "$TOKEN" | base64 -w0)" && echo encoded ones too
      - test "$(cat /root/kept)" = "$TOKEN" && test "$(cat /opt/*/pem)" = "$PEM" && echo files carry
artifacts: {files: ['out/**/*'], secondary-artifacts: {other: {files: ['other/**/*'], name: other}}}
cache: {paths: ['cached/**/*']}
reports: {tests: {files: [report.xml]}}
"#;

pub(crate) fn set(farm: &Farm, arguments: &[&str], value: &str) -> Built {
    let mut command = farm.client(&["secret", "set"]);
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut setting = command.spawn().unwrap();
    let mut input = setting.stdin.take().unwrap();
    input.write_all(value.as_bytes()).unwrap();
    drop(input);
    Built::from(setting.wait_with_output().unwrap())
}

fn farm_with_secrets() -> Farm {
    let farm = Farm::start(FarmPlan::default());
    let object = format!("{{\"user\":\"administrator\",\"pass\":\"{PASSWORD}\"}}");
    for (name, value) in [
        ("/app/token", TOKEN),
        ("app/pem", PEM),
        ("app/object", &object),
    ] {
        let built = set(&farm, &[name], &format!("{value}\n"));
        assert_eq!(built.code, 0, "{}", built.stderr);
    }
    farm
}

/// What must be found nowhere: the values, each line, and the same in base64 at each offset.
fn needles() -> Vec<Vec<u8>> {
    let mut secrets = vec![TOKEN, PEM, PASSWORD];
    secrets.extend(PEM.lines().filter(|line| !line.contains("KEY")));
    let mut needles = Vec::new();
    for secret in secrets {
        needles.push(secret.as_bytes().to_vec());
        // As it stands in a journal.
        let json = serde_json::to_string(secret).unwrap();
        needles.push(json.trim_matches('"').as_bytes().to_vec());
        for before in 0..3 {
            needles.push(base64_of(secret, before));
        }
    }
    needles
}

/// What the machine's own `base64` makes of a secret, without what depends on its surroundings.
fn base64_of(secret: &str, before: usize) -> Vec<u8> {
    let output = Command::new("sh")
        .args(["-c", "printf '%s' \"$1$2\" | base64 -w0", "sh"])
        .args([&"x".repeat(before), secret])
        .output()
        .unwrap();
    let encoded = output.stdout;
    let whole = (before + secret.len()) * 8 / 6;
    encoded[(before * 8).div_ceil(6)..whole].to_vec()
}

#[test]
fn a_secret_printed_in_every_form_is_in_no_log_and_no_file_and_no_process() {
    if !has_namespaces() {
        testkit::tell("what phases leave is not looked through here: that takes level `namespace`");
        return;
    }
    let mut farm = farm_with_secrets();
    let source = tempfile::tempdir().unwrap();
    project::write_buildspec(source.path(), PRINTS);
    let to = source.path().join("fetched");
    let arguments = ["--project", "app", "--artifacts", to.to_str().unwrap()];
    let built = farm.build(source.path(), &arguments);
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
    check_log(&built);
    let published = |name: &str| to.join("out").join(name).exists();
    assert!(published("clean") && published("control"));

    // While a build runs, too: it waits where a test can see that it does.
    let waits = PRINTS.replace(
        "      - test \"$DERIVED\"",
        "      - echo it is there; sleep 600\n      - test \"$DERIVED\"",
    );
    assert_ne!(waits, PRINTS);
    project::write_buildspec(source.path(), &waits);
    let running = farm.submit(source.path(), &["--project", "app"]);
    wait::until_true("the build waits", || {
        farm.log(&running).contains("it is there\n")
    });
    check_nowhere(&farm, RUNNING);
    assert!(farm.client(&["stop", &running]).status().unwrap().success());
    farm.wait_for_end(&running);
    check_nowhere(&farm, "while services run");

    // What its commands have written goes with a worker that is killed, although nobody starts it again.
    let running = farm.submit(source.path(), &["--project", "app"]);
    wait::until_true("the build waits again", || {
        farm.log(&running).contains("it is there\n")
    });
    let attempts = farm.worker_directory(0).join("attempts");
    let is_written = || !search(&attempts, &[TOKEN.as_bytes().to_vec()]).is_empty();
    assert!(is_written(), "the build has it, and the search finds it");
    farm.kill_worker(0);
    wait::until_true("what was written is wiped", || {
        std::fs::read_dir(&attempts).unwrap().next().is_none()
    });
    check_nowhere(&farm, "when the worker is killed");
    farm.kill_cache();
    farm.kill_coordinator();
    check_nowhere(&farm, KILLED);
}

fn check_log(built: &Built) {
    let log = built.stdout.as_bytes();
    for needle in needles() {
        let is_there = log.windows(needle.len()).any(|window| window == needle);
        assert!(!is_there, "{}\n{}", needle.escape_ascii(), built.stdout);
    }
    // Nor in the forms that have escapes in them, as far as they are seen to be of it.
    for part in [
        "Tr0ub4dor",
        "MIIEvQ",
        "AQEFAASC",
        "hunter2",
        "%54%72%30",
        "administrator",
    ] {
        assert!(!built.stdout.contains(part), "{part}\n{}", built.stdout);
    }
    let printed = built.printed();
    assert_eq!(printed[0], "plain *** end");
    assert_eq!(printed[1..3], ["***", "***"], "{printed:?}");
    for line in [
        "variables carry",
        "encoded ones too",
        "files carry",
        "u=***&z",
    ] {
        assert!(printed.contains(&line), "{line}: {printed:?}");
    }
    for said in [
        "Variable DERIVED is not exported: it holds the secret of the variable TOKEN",
        "Variable ENCODED is not exported: it holds the secret",
        "Report app-tests is not kept: it holds the secret",
        "Saved cache of the project",
        "Decrypting parameter store environment variables",
    ] {
        assert!(built.stdout.contains(said), "{said}\n{}", built.stdout);
    }
}

const RUNNING: &str = "while a build runs";
const KILLED: &str = "when all are killed";

/// Searches everything of the farm for the secrets, and for what has to be found.
fn check_nowhere(farm: &Farm, when: &str) {
    let mut sought = needles();
    let control = sought.len();
    sought.push(CONTROL.as_bytes().to_vec());
    sought.push(b"--listen".to_vec());
    let found = search(farm.directory(), &sought);
    let of = |needle| {
        let found = found
            .iter()
            .filter(move |found: &&Found| found.needle == needle);
        found.map(|found| found.place.clone()).collect::<Vec<_>>()
    };
    for (needle, secret) in sought[..control].iter().enumerate() {
        let mut places = of(needle);
        // What a build has written is where it works, as long as it does.
        places.retain(|place| when != RUNNING || !place.contains("/attempts/"));
        assert!(
            places.is_empty(),
            "{when}: {} in {places:?}",
            secret.escape_ascii()
        );
    }
    let places = of(control);
    let in_chunk = places.iter().any(|place| place.contains("unpacked from"));
    assert!(
        in_chunk,
        "{when}: the control is not in a chunk: {places:?}"
    );
    let places = of(control + 1);
    let of_processes = places.iter().any(|place| place.ends_with("/cmdline"));
    assert!(of_processes || when == KILLED, "{when}: {places:?}");
}

/// Writes what a cache and an artifact would hold.
const STORES: &str = r#"
version: 0.2
env: {secrets-manager: {DB: app/db, PASS: 'app/db:password'}}
phases:
  build:
    commands:
      - if test -e /root/.kept/clean; then echo it was restored; fi
      - mkdir -p out /root/.kept; echo clean > /root/.kept/clean; echo "root on postgres" > out/clean
      - COMMAND
artifacts: {files: ['out/**/*']}
cache: {paths: ['/root/.kept/**/*']}
"#;

#[test]
fn a_cache_or_artifact_with_a_secret_is_not_stored_and_one_without_is_whole() {
    if !has_namespaces() {
        testkit::tell("caches of `/root` are not looked at here: that takes level `namespace`");
        return;
    }
    let farm = farm_with_secrets();
    let object =
        r#"{"username":"root","password":"a-Long-pass-word","engine":"postgres","port":5432}"#;
    assert_eq!(set(&farm, &["app/db"], object).code, 0);
    let source = tempfile::tempdir().unwrap();
    let run = |command: &str| build(&farm, source.path(), &STORES.replace("COMMAND", command));
    let dirty = run("echo \"$PASS\" > /root/.kept/dirty");
    assert_eq!(dirty.code, 0, "{}\n{}", dirty.stdout, dirty.stderr);
    for said in [
        "Secrets are in what the cache would hold: ***/.kept/dirty (the secret of",
        "Cache of the project is not saved: there are secrets in it",
    ] {
        assert!(dirty.stdout.contains(said), "{said}\n{}", dirty.stdout);
    }
    let clean = run("true");
    assert_eq!(clean.code, 0, "{}\n{}", clean.stdout, clean.stderr);
    assert!(
        !clean.printed().contains(&"it was restored"),
        "{}",
        clean.stdout
    );
    assert!(
        clean.stdout.contains("Saved cache of the project"),
        "{}",
        clean.stdout
    );
    for command in [
        "echo \"$PASS\" | base64 > out/dirty",
        "ln -s clean \"out/$PASS\"",
        "echo found; mkdir \"out/$PASS\"; touch \"out/$PASS/x\"",
    ] {
        let refused = run(command);
        assert_eq!(refused.code, 1, "{}\n{}", refused.stdout, refused.stderr);
        assert!(
            refused.printed().contains(&"it was restored"),
            "{}",
            refused.stdout
        );
        for said in [
            "Phase complete: UPLOAD_ARTIFACTS State: FAILED",
            "artifact is not published, as it holds secrets: ",
        ] {
            assert!(refused.stdout.contains(said), "{said}\n{}", refused.stdout);
        }
        assert!(
            !refused.stdout.contains("a-Long-pass"),
            "{}",
            refused.stdout
        );
    }
}

#[test]
fn a_secret_is_set_listed_versioned_and_deleted_and_never_shown() {
    let farm = farm_with_secrets();
    let short = set(&farm, &["short"], "abc\n");
    assert_eq!(short.code, 2, "{}", short.stderr);
    assert!(
        short.stderr.contains("at least 4 bytes"),
        "{}",
        short.stderr
    );
    let typed = farm
        .client(&["secret", "set", "x", "value"])
        .output()
        .unwrap();
    assert_eq!(typed.status.code(), Some(2), "a value is no argument");
    let file = farm.directory().join("value");
    std::fs::write(&file, "from a file").unwrap();
    let of_project = [
        "--project",
        "app",
        "/app/token",
        "--file",
        file.to_str().unwrap(),
    ];
    assert_eq!(set(&farm, &of_project, "").code, 0);
    assert_eq!(set(&farm, &of_project, "").code, 0);
    let listed = farm.json(&["secret", "list", "--project", "app"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["versions"][0]["stage"], "AWSCURRENT");
    assert_eq!(listed[0]["versions"][1]["stage"], "AWSPREVIOUS");
    let all = farm.client(&["secret", "list"]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    assert!(
        all.contains("app/object") && !all.contains("hunter2"),
        "{all}"
    );
    let delete = ["secret", "delete", "app/pem"];
    assert!(farm.client(&delete).status().unwrap().success());
    assert!(!farm.client(&delete).status().unwrap().success());
}

fn build(farm: &Farm, source: &Path, buildspec: &str) -> Built {
    project::write_buildspec(source, buildspec);
    farm.build(source, &["--project", "app"])
}

#[test]
fn a_secret_that_does_not_exist_ends_the_first_phase_with_codebuilds_message() {
    let farm = farm_with_secrets();
    let source = tempfile::tempdir().unwrap();
    let with = |env: &str| {
        format!("version: 0.2\nenv:\n  {env}\nphases:\n  build:\n    commands: [echo it ran]\n")
    };
    for (env, message) in [
        ("parameter-store: {A: /none}", "Parameter does not exist"),
        (
            "secrets-manager: {A: none}",
            "Secrets Manager Error: ResourceNotFoundException: Secrets Manager can't find the specified secret.",
        ),
        (
            "secrets-manager: {A: 'app/object:none'}",
            "has no key `none`",
        ),
    ] {
        let built = build(&farm, source.path(), &with(env));
        assert_eq!(built.code, 1, "{}\n{}", built.stdout, built.stderr);
        for line in [
            "Phase complete: DOWNLOAD_SOURCE State: FAILED",
            "Phase context status code: CLIENT_ERROR Message: ",
            message,
        ] {
            assert!(built.stdout.contains(line), "{line}\n{}", built.stdout);
        }
        assert!(!built.stdout.contains("it ran"), "{}", built.stdout);
    }
    let built = build(
        &farm,
        source.path(),
        &with("secrets-manager: {A: 'app/object:user'}"),
    );
    assert_eq!(built.code, 0, "{}\n{}", built.stdout, built.stderr);
}
