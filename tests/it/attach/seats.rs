//! Who gets a shell, how many, how they leave, and what is found where the farm's directories are elsewhere.

use std::os::unix::fs::symlink;

use super::*;

/// Waits until a build pauses, so that terminals find it.
fn wait_for_pause(farm: &Farm, build: &str) {
    wait::until_true("the build is paused", || {
        farm.log(build).contains("the build is paused")
    });
}

fn go_on(farm: &Farm, build: &str) {
    let done = type_in(farm, build, "echo 42 > made; codebuild-resume\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(outcome(farm, build), "SUCCEEDED");
}

#[test]
fn eight_people_who_left_while_their_program_did_not_read_leave_room_for_eight_more() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    wait_for_pause(&farm, &build);
    let deaf = || {
        let mut attach = attach(&farm, &build);
        let mut keys = attach.stdin.take().unwrap();
        // More than a terminal and all that is on the way to it hold.
        let lines = format!("echo ready; sleep 1000\n{}", "x\n".repeat(2 << 20));
        let typing = thread::spawn(move || {
            let _cut_off = keys.write_all(lines.as_bytes());
        });
        wait_for_shell(&mut attach);
        (attach, typing)
    };
    let open: Vec<_> = (0..8).map(|_| deaf()).collect();
    let ninth = farm.client(&["attach", &build]).output().unwrap();
    let ninth = Built::from(ninth);
    assert_eq!(ninth.code, 2, "{}\n{}", ninth.stdout, ninth.stderr);
    assert!(ninth.stderr.contains("as many"), "{}", ninth.stderr);
    for (mut attach, typing) in open {
        attach.kill().unwrap();
        attach.wait().unwrap();
        typing.join().unwrap();
    }
    wait::until_true("what they ran is gone", || {
        let line = "pgrep -f 'sleep 100''0' > /dev/null || exit 6; exit 5\n";
        type_in(&farm, &build, line).code == 6
    });
    go_on(&farm, &build);
}

#[test]
fn a_terminal_follows_its_window_and_is_left_from_within_a_program_that_takes_every_key() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    wait_for_pause(&farm, &build);
    let mut terminal = Terminal::start(farm.client(&["attach", &build]), (37, 101));
    terminal.type_in("echo \"[$(stty size)]\"\r");
    terminal.wait_for("[37 101]");
    terminal.resize((20, 44));
    wait::until_true("the shell's window is as the person's", || {
        terminal.type_in("echo \"[$(stty size)]\"\r");
        terminal.screen().contains("[20 44]")
    });
    // It reads every key as it is, Ctrl-C too.
    terminal.type_in("stty raw; echo taken; cat\r");
    terminal.wait_for("taken\n");
    terminal.type_in("\x03\r~.");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    go_on(&farm, &build);
}

#[test]
fn a_terminal_is_left_though_its_program_does_not_read() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    wait_for_pause(&farm, &build);
    let mut terminal = Terminal::start(farm.client(&["attach", &build]), (24, 80));
    terminal.type_in("echo ready-$((40 + 2)); sleep 1000\r");
    terminal.wait_for("ready-42");
    // More than all on the way hold.
    for _ in 0..64 {
        terminal.type_in(&"x\r".repeat(32 * 1024));
    }
    terminal.type_in("\r~.");
    let (code, _) = terminal.finish();
    assert_eq!(code, Some(0));
    go_on(&farm, &build);
}

#[test]
fn the_end_of_what_is_piped_ends_what_reads_it_and_then_the_shell() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    let mut attach = attach(&farm, &build);
    let mut keys = attach.stdin.take().unwrap();
    keys.write_all(b"cat > /tmp/typed\nlast\n").unwrap();
    drop(keys);
    let ended = Built::from(attach.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let seen = type_in(&farm, &build, "echo \"<$(cat /tmp/typed)>\"; exit\n");
    // An end that is typed before `cat` has begun is a character like any other, and typed again.
    assert!(seen.stdout.contains("<last"), "{}", seen.stdout);
    go_on(&farm, &build);
}

#[test]
fn a_developer_gets_into_what_a_developer_submitted() {
    let farm = Farm::start(FarmPlan::default());
    let home = tempfile::tempdir().unwrap();
    let arguments = ["token", "create", "--role", "developer"];
    let token = farm.client(&arguments).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let as_developer = |arguments: &[&str]| {
        let mut command = farm.client(arguments);
        command
            .env("GRANGE_TOKEN", token.trim())
            .env("XDG_DATA_HOME", home.path().join("data"))
            .env("XDG_CONFIG_HOME", home.path().join("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), "=== sub/keep\n");
    project::write_buildspec(source.path(), PAUSES);
    let submitted = as_developer(&[
        "build",
        source.path().to_str().unwrap(),
        "--project",
        "sample",
        "--debug",
        "--detach",
    ]);
    let submitted = { submitted }.output().unwrap();
    assert!(submitted.status.success(), "{submitted:?}");
    let build = String::from_utf8(submitted.stdout).unwrap();
    let build = build.trim();
    wait_for_pause(&farm, build);
    let mut attach = as_developer(&["attach", build]).spawn().unwrap();
    let mut keys = attach.stdin.take().unwrap();
    keys.write_all(b"id -u; exit 9\n").unwrap();
    let ended = Built::from(attach.wait_with_output().unwrap());
    assert_eq!(ended.code, 9, "{}\n{}", ended.stdout, ended.stderr);
    go_on(&farm, build);
}

#[test]
fn a_build_that_is_out_of_time_takes_its_shells_along() {
    if !testkit::slow_tests() {
        testkit::skip("the shortest time limit is a minute: GRANGE_SLOW_TESTS=1");
        return;
    }
    let mut farm = Farm::start(FarmPlan {
        settings: "[coordinator]\nbuild_minutes_max = 1\n".to_owned(),
        ..FarmPlan::default()
    });
    let ended = ended_under(&mut farm, |farm, build| {
        assert_eq!(outcome(farm, build), "TIMED_OUT");
    });
    assert_eq!(ended.code, 5, "{}", ended.stderr);
}

#[test]
fn a_shell_is_found_where_the_workers_directory_is_behind_a_link() {
    for isolation in ["namespace", "host"] {
        let elsewhere = tempfile::tempdir().unwrap();
        let mut farm = Farm::start(FarmPlan {
            isolation: Some(isolation),
            ..FarmPlan::default()
        });
        // The worker's directory is a link, as where the disk with room is another.
        farm.kill_worker(0);
        let directory = farm.worker_directory(0);
        let moved = elsewhere.path().join("worker");
        std::fs::rename(&directory, &moved).unwrap();
        symlink(&moved, &directory).unwrap();
        farm.start_worker(0);
        let build = submit(&farm, PAUSES);
        let seen = type_in(&farm, &build, "echo \"<$A>\"; exit 7\n");
        assert_eq!(seen.code, 7, "{}\n{}", seen.stdout, seen.stderr);
        assert!(seen.stdout.contains("<seen>"), "{}", seen.stdout);
        go_on(&farm, &build);
    }
}

#[test]
fn a_shell_is_the_user_of_the_command() {
    let farm = Farm::start(FarmPlan::default());
    let named = PAUSES.replace("  build:\n", "  build:\n    run-as: nobody\n");
    let build = submit(&farm, &named.replace("touch here", "true"));
    let seen = type_in(&farm, &build, "echo \"<$(id -un)>\"; exit 7\n");
    assert!(seen.stdout.contains("<nobody>"), "{}", seen.stdout);
    assert_eq!(seen.code, 7, "{}\n{}", seen.stdout, seen.stderr);
    let stopped = farm.client(&["stop", &build]).status().unwrap();
    assert!(stopped.success());
}
