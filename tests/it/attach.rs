//! `grange build --debug` and `grange attach`: shells in a build that pauses.

mod seats;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use testkit::{
    farm::{Built, Farm, FarmPlan},
    project, wait,
};

const PAUSES: &str = "\
version: 0.2
phases:
  build:
    commands:
      - A=seen && cd sub && touch here
      - codebuild-breakpoint
      - echo on with $(cat made) $A
      - test ! -e ~/.bash_history && echo nothing typed is kept
";

/// Submits a build that is debugged, and gives its id.
fn submit(farm: &Farm, buildspec: &str) -> String {
    let source = tempfile::tempdir().unwrap();
    project::write(source.path(), "=== sub/keep\n");
    project::write_buildspec(source.path(), buildspec);
    farm.submit(source.path(), &["--project", "sample", "--debug"])
}

/// Starts `grange attach` with pipes, once the build is paused.
fn attach(farm: &Farm, build: &str) -> Child {
    wait::until_true("the build is paused", || {
        farm.log(build).contains("the build is paused")
    });
    let mut attach = farm.client(&["attach", build]);
    attach
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    attach.spawn().unwrap()
}

/// Waits until a shell has shown something.
fn wait_for_shell(attach: &mut Child) {
    let shown = attach.stdout.as_mut().unwrap();
    shown.read_exact(&mut [0]).unwrap();
}

/// Types lines into a shell of a build, and waits for its end.
fn type_in(farm: &Farm, build: &str, lines: &str) -> Built {
    let mut attach = attach(farm, build);
    let mut keys = attach.stdin.take().unwrap();
    keys.write_all(lines.as_bytes()).unwrap();
    let ended = attach.wait_with_output().unwrap();
    drop(keys);
    Built::from(ended)
}

fn outcome(farm: &Farm, build: &str) -> String {
    let ended = farm.wait_for_end(build);
    ended["summary"]["status"]["ENDED"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A terminal with a `grange` command at its other end.
struct Terminal {
    master: File,
    child: Child,
    /// What was shown so far.
    screen: Arc<Mutex<Vec<u8>>>,
    reads: JoinHandle<()>,
}

impl Terminal {
    fn start(mut command: Command, size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, window(size)).unwrap();
        let end = || Stdio::from(ioctl_tiocgptpeer(&master, OpenptFlags::RDWR).unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        // It holds its own ends of the terminal.
        drop(command);
        let mut shown = File::from(master.try_clone().unwrap());
        let screen = Arc::default();
        let written: Arc<Mutex<Vec<u8>>> = Arc::clone(&screen);
        let reads = thread::spawn(move || {
            let mut piece = [0; 1024];
            // Nobody has the other end any more: an error, on Linux.
            while let Ok(length @ 1..) = shown.read(&mut piece) {
                written.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self {
            master: File::from(master),
            child,
            screen,
            reads,
        }
    }

    fn resize(&self, size: (u16, u16)) {
        tcsetwinsize(&self.master, window(size)).unwrap();
        // Only those are told by the kernel whose own terminal it is.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::WINCH).unwrap();
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        wait::until_true(&format!("the screen shows `{text}`"), || {
            self.screen().contains(text)
        });
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// The exit code, and all that was shown.
    fn finish(mut self) -> (Option<i32>, String) {
        let ended = self.child.wait().unwrap();
        let screen = Arc::clone(&self.screen);
        self.reads.join().unwrap();
        let screen = String::from_utf8_lossy(&screen.lock().unwrap()).into_owned();
        (ended.code(), screen)
    }
}

fn window((rows, columns): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn a_breakpoint_pauses_a_debugged_build_and_a_terminal_is_in_it() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    wait::until_true("the build is paused", || {
        farm.log(&build).contains("the build is paused")
    });
    let paused = farm.log(&build);
    assert!(
        paused.contains(&format!("`grange attach {build}`")),
        "{paused}"
    );
    let mut terminal = Terminal::start(farm.client(&["attach", &build]), (37, 101));
    terminal.type_in("echo \"<$A> <$(basename $PWD)> <$(ls)> <$(stty size)>\"; echo 42 > made\r");
    terminal.type_in("codebuild-resume\r");
    let (code, screen) = terminal.finish();
    assert!(screen.contains("<seen> <sub> <here"), "{screen}");
    assert!(screen.contains("<37 101>"), "{screen}");
    assert!(screen.contains("the build goes on"), "{screen}");
    assert_eq!(
        (code, outcome(&farm, &build).as_str()),
        (Some(0), "SUCCEEDED")
    );
    let log = farm.log(&build);
    assert!(log.contains("on with 42 seen\n"), "{log}");
    assert!(log.contains("\nnothing typed is kept\n"), "{log}");
    assert!(
        !log.contains("<37 101>"),
        "what is typed is not logged: {log}"
    );
    let late = farm.client(&["attach", &build]).output().unwrap();
    assert_eq!(late.status.code(), Some(2), "{late:?}");
}

#[test]
fn a_shell_ends_with_its_own_status_and_the_build_pauses_on_at_level_host_too() {
    let farm = Farm::start(FarmPlan {
        isolation: Some("host"),
        ..FarmPlan::default()
    });
    let build = submit(&farm, PAUSES);
    let line = "test -t 0 && echo \"<$A>\"; echo 42 > made; sleep 600 & exit 7\n";
    let first = type_in(&farm, &build, line);
    assert!(first.stdout.contains("<seen>"), "{}", first.stdout);
    assert_eq!(first.code, 7, "{}\n{}", first.stdout, first.stderr);
    assert!(farm.status(&build)["summary"]["ended"].is_null());
    let second = type_in(&farm, &build, "codebuild-resume\n");
    assert_eq!(second.code, 0, "{}\n{}", second.stdout, second.stderr);
    assert_eq!(outcome(&farm, &build), "SUCCEEDED");
    let log = farm.log(&build);
    assert!(log.contains("on with 42 seen\n"), "{log}");
}

#[test]
fn a_build_that_is_not_debugged_says_so_and_does_not_pause() {
    let farm = Farm::start(FarmPlan::default());
    let source = tempfile::tempdir().unwrap();
    let commands = "commands: [codebuild-breakpoint, codebuild-resume, echo on]";
    let buildspec = format!("version: 0.2\nphases:\n  build:\n    {commands}\n");
    project::write_buildspec(source.path(), &buildspec);
    let built = farm.build(source.path(), &["--project", "sample"]);
    assert_eq!(built.code, 0, "{}", built.stdout);
    let printed = built.printed();
    assert_eq!((printed.len(), printed[1]), (2, "on"), "{printed:?}");
    assert!(printed[0].contains("does not pause"), "{printed:?}");
}

#[test]
fn a_build_resumes_itself() {
    let farm = Farm::start(FarmPlan::default());
    let commands = "
      - (codebuild-breakpoint; echo second) &
      - (until codebuild-resume; do true; done) 2> /dev/null; wait; echo first
      - (until codebuild-resume; do true; done) & codebuild-breakpoint; wait; echo on
";
    let buildspec = format!("version: 0.2\nphases:\n  build:\n    commands:{commands}");
    let build = submit(&farm, &buildspec);
    assert_eq!(outcome(&farm, &build), "SUCCEEDED", "{}", farm.log(&build));
    let log = farm.log(&build);
    for line in ["first\n", "on\n"] {
        assert!(log.contains(line), "{log}");
    }
}

/// What a person sees whose build ends under an open shell.
fn ended_under(farm: &mut Farm, end: impl FnOnce(&mut Farm, &str)) -> Built {
    let build = submit(farm, PAUSES);
    let mut attach = attach(farm, &build);
    let mut keys = attach.stdin.take().unwrap();
    keys.write_all(b"echo in > /tmp/in; cat\n").unwrap();
    wait_for_shell(&mut attach);
    end(farm, &build);
    let ended: Output = attach.wait_with_output().unwrap();
    drop(keys);
    Built::from(ended)
}

#[test]
fn a_build_that_is_stopped_takes_its_shells_along() {
    let mut farm = Farm::start(FarmPlan::default());
    let ended = ended_under(&mut farm, |farm, build| {
        let stopped = farm.client(&["stop", build]).status().unwrap();
        assert!(stopped.success());
        assert_eq!(outcome(farm, build), "STOPPED");
    });
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("was stopped"), "{}", ended.stderr);
}

#[test]
fn a_worker_that_is_lost_ends_its_shells_with_a_word() {
    let mut farm = Farm::start(FarmPlan::default());
    let ended = ended_under(&mut farm, |farm, _| farm.kill_worker(0));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("worker"), "{}", ended.stderr);
}

#[test]
fn what_a_terminal_shows_has_no_secrets() {
    let farm = Farm::start(FarmPlan::default());
    let mut set = farm.client(&["secret", "set", "token"]);
    set.stdin(Stdio::piped());
    let mut set = set.spawn().unwrap();
    set.stdin
        .take()
        .unwrap()
        .write_all(b"hunter2-and-more")
        .unwrap();
    assert!(set.wait().unwrap().success());
    let secrets = "env:\n  secrets-manager: {TOKEN: token}\n";
    let build = submit(
        &farm,
        &PAUSES.replace("phases:", &format!("{secrets}phases:")),
    );
    let line = "echo \"<$TOKEN>\"; echo $TOKEN > made; codebuild-resume\n";
    let seen = type_in(&farm, &build, line);
    assert!(seen.stdout.contains("<***>"), "{}", seen.stdout);
    assert!(!seen.stdout.contains("hunter2"), "{}", seen.stdout);
    assert_eq!(outcome(&farm, &build), "SUCCEEDED");
    assert!(farm.log(&build).contains("on with *** seen"));
}

/// What somebody is told who tries to attach as a new member.
fn refused_as(farm: &Farm, (team, role): (&str, &str), build: &str) -> Built {
    let arguments = ["token", "create", "--team", team, "--role", role];
    let token = farm.client(&arguments).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut attach = farm.client(&["attach", build]);
    attach
        .env("GRANGE_TOKEN", token.trim())
        .env("XDG_DATA_HOME", home.path().join("data"))
        .env("XDG_CONFIG_HOME", home.path().join("config"));
    Built::from(attach.output().unwrap())
}

#[test]
fn only_people_of_the_builds_team_get_a_shell() {
    let farm = Farm::start(FarmPlan::default());
    let build = submit(&farm, PAUSES);
    wait::until_true("the build is paused", || {
        farm.log(&build).contains("the build is paused")
    });
    for (who, part) in [
        (("other", "developer"), "no build is called"),
        (("other", "admin"), "of another team"),
        (("main", "ci"), "may not open shells"),
        (("main", "worker"), "is needed"),
        // It is an admin's, and so trusted as those of protected branches.
        (("main", "developer"), "that is trusted further"),
    ] {
        let refused = refused_as(&farm, who, &build);
        assert_eq!(refused.code, 2, "{who:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(part), "{who:?}: {}", refused.stderr);
    }
    let done = type_in(&farm, &build, "codebuild-resume\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn a_terminal_that_nobody_reads_holds_up_nothing_else() {
    let farm = Farm::start(FarmPlan {
        slots: 2,
        ..FarmPlan::default()
    });
    let build = submit(&farm, PAUSES);
    let mut unread = Vec::new();
    for _ in 0..6 {
        let mut attach = attach(&farm, &build);
        let keys = attach.stdin.as_mut().unwrap();
        keys.write_all(b"yes ........................................\n")
            .unwrap();
        wait_for_shell(&mut attach);
        unread.push(attach);
    }
    let source = tempfile::tempdir().unwrap();
    let loud = "version: 0.2\nphases:\n  build:\n    commands: ['seq 2000000']\n";
    project::write_buildspec(source.path(), loud);
    let built = farm.build(source.path(), &["--project", "loud"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    for mut attach in unread {
        attach.kill().unwrap();
        attach.wait().unwrap();
    }
    let done = type_in(&farm, &build, "echo 42 > made; codebuild-resume\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(outcome(&farm, &build), "SUCCEEDED");
}
