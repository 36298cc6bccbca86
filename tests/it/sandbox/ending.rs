//! Everything that a phase started ends with it, however it tried to get away.

use std::{fs, path::Path, time::Duration};

use protocol::worker::Isolation;
use rustix::process::{Pid, Signal, kill_process};
use testkit::wait::until_true;
use tokio::io::AsyncReadExt;
use worker::sandbox::{Sandbox, SandboxSpec, StartError};

use super::{Ground, command, exists, levels, namespaces, phase, running, runtime};

/// Ways to leave a process behind; `MARK` is its argument.
const ESCAPES: [&str; 6] = [
    "sleep MARK &",
    "nohup sleep MARK >/dev/null 2>&1 &",
    "setsid sleep MARK </dev/null >/dev/null 2>&1 &",
    "( ( setsid sh -c 'setsid sleep MARK & setsid sleep MARK' & ) & )",
    "sh -c 'trap \"\" TERM HUP INT; sleep MARK & sleep MARK' & ",
    "setsid sh -c 'while :; do setsid sh -c \"exec sleep MARK\" & sleep 0.01; done' &",
];

/// A number of seconds that nobody else sleeps for.
fn mark(index: usize, level: Isolation) -> String {
    format!("{}{}{index}", 100_000 + std::process::id(), level as u8)
}

#[test]
fn whatever_was_left_in_the_background_is_killed_at_the_end() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            for (index, escape) in ESCAPES.into_iter().enumerate() {
                let ground = Ground::new(level);
                let mark = mark(index, level);
                let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
                let mut output = sandbox.take_output().unwrap();
                let text = escape.replace("MARK", &mark);
                // The background process holds the log open; the command ends all the same.
                let exit = sandbox.run(&command(&text)).await.unwrap();
                assert_eq!(exit.code, 0);
                until_true("the process runs", || running(&mark));
                sandbox.quiesce().await.unwrap();
                assert!(!running(&mark), "left at level {level}: {escape}");
                // The log has ended.
                let mut log = Vec::new();
                output.read_to_end(&mut log).await.unwrap();
                sandbox.finish().await.unwrap();
            }
        }
    });
}

#[test]
fn a_dropped_sandbox_takes_everything_with_it() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            for (index, escape) in ESCAPES.into_iter().enumerate() {
                let ground = Ground::new(level);
                let mark = mark(10 + index, level);
                let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
                let text = escape.replace("MARK", &mark);
                sandbox.run(&command(&text)).await.unwrap();
                until_true("the process runs", || running(&mark));
                // What the kernel does with the socket of a worker that was killed.
                drop(sandbox);
                until_true("all has ended", || !running(&mark));
            }
        }
    });
}

#[test]
fn a_killed_keeper_takes_everything_with_it() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let mark = mark(20, Isolation::Namespace);
        let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
        let text = format!("setsid sleep {mark} &");
        sandbox.run(&command(&text)).await.unwrap();
        until_true("the process runs", || running(&mark));
        kill_process(parent_of(init_of(&sandbox)), Signal::KILL).unwrap();
        until_true("all has ended", || !running(&mark));
        assert!(sandbox.run(&command("true")).await.is_err());
        assert!(sandbox.finish().await.is_err());
    });
}

#[test]
fn what_a_killed_keeper_of_a_host_leaves_is_found_and_killed() {
    let runtime = runtime();
    runtime.block_on(async {
        if !levels().await.contains(&Isolation::Host) {
            return;
        }
        let ground = Ground::new(Isolation::Host);
        let mark = mark(21, Isolation::Host);
        let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
        let text = format!("setsid sleep {mark} </dev/null >/dev/null 2>&1 &");
        sandbox.run(&command(&text)).await.unwrap();
        let carried = sandbox.variables_and_directory().await.unwrap();
        assert!(!carried.variables.contains_key("GRANGE_SANDBOX"));
        let mut left = None;
        // It is nobody for a moment, while one program takes the place of another.
        until_true("the process runs", || {
            left = testkit::process::with_argument(&mark).first().copied();
            left.is_some()
        });
        let left = left.expect("it was waited for");
        // Its shell has ended, so that it is the keeper's child.
        let keeper = parent_of(Pid::from_raw(i32::try_from(left).unwrap()).unwrap());
        kill_process(keeper, Signal::KILL).unwrap();
        assert!(sandbox.finish().await.is_err());
        assert!(!running(&mark));
    });
}

fn init_of(sandbox: &Sandbox) -> Pid {
    let view = sandbox.view().to_str().unwrap();
    let number = view.trim_start_matches("/proc/").trim_end_matches("/root");
    Pid::from_raw(number.parse().unwrap()).unwrap()
}

fn parent_of(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("PPid:"))
        .unwrap();
    let number = line.trim_start_matches("PPid:").trim().parse().unwrap();
    Pid::from_raw(number).unwrap()
}

#[test]
fn commands_cannot_end_their_sandbox() {
    let runtime = runtime();
    runtime.block_on(async {
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let commands = [
            "kill -9 1; kill -TERM 1; kill -INT 1; kill -HUP 1; kill -CHLD 1; echo still",
            "echo here",
        ];
        let phase = phase(ground.spec("phase", &[]), &commands).await;
        assert_eq!(phase.log, "still\nhere\n");
    });
}

#[test]
fn a_command_over_its_time_is_killed_and_its_sandbox_can_still_tell() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let mark = mark(30, level);
            let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
            sandbox.run(&command("A=1; cd /usr")).await.unwrap();
            let text = command(&format!("A=2; sleep {mark}"));
            let limit = Duration::from_millis(50);
            assert!(
                tokio::time::timeout(limit, sandbox.run(&text))
                    .await
                    .is_err()
            );
            sandbox.quiesce().await.unwrap();
            assert!(!running(&mark));
            let carried = sandbox.variables_and_directory().await.unwrap();
            assert_eq!(carried.variables["A"], b"1");
            assert_eq!(carried.directory, b"/usr");
            // The answer to the killed command is not taken for this one's.
            assert_eq!(sandbox.run(&command("exit 3")).await.unwrap().code, 3);
            sandbox.finish().await.unwrap();
        }
    });
}

#[test]
fn nothing_is_left_on_the_machine() {
    let runtime = runtime();
    runtime.block_on(async {
        for level in levels().await {
            let ground = Ground::new(level);
            let children = || fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
            let before = (mounts(ground.directory.path()), children());
            for _ in 0..10 {
                let mut sandbox = Sandbox::start(ground.spec("phase", &[])).await.unwrap();
                sandbox
                    .run(&command("echo x > x; sleep 1000 &"))
                    .await
                    .unwrap();
                sandbox.finish().await.unwrap();
                // Not busy: nothing is mounted there any more.
                for name in ["upper", "work"] {
                    let path = ground.path("phase").join(name);
                    if exists(&path) {
                        fs::remove_dir_all(path).unwrap();
                    }
                }
            }
            let after = (mounts(ground.directory.path()), children());
            assert_eq!(before, after);
        }
    });
}

fn mounts(below: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = below.to_str().unwrap();
    let lines = table.lines().filter(|line| line.contains(below));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_set_up_is_said_by_name() {
    let runtime = runtime();
    runtime.block_on(async {
        let ground = Ground::new(Isolation::Host);
        let spec = SandboxSpec {
            program: ground.path("no-such-program"),
            ..ground.spec("phase", &[])
        };
        let error = Sandbox::start(spec).await.unwrap_err();
        assert!(matches!(error, StartError::Execute { .. }), "{error:?}");
        fs::write(ground.path("file"), b"").unwrap();
        let spec = SandboxSpec {
            work: ground.path("file"),
            ..ground.spec("phase", &[])
        };
        let StartError::SetUp { source, .. } = Sandbox::start(spec).await.unwrap_err() else {
            panic!("another error");
        };
        assert!(source.to_string().contains("file/state"), "{source}");
        if !namespaces().await {
            return;
        }
        let ground = Ground::new(Isolation::Namespace);
        let spec = ground.spec("phase", &["no-such-layer"]);
        let StartError::SetUp { source, .. } = Sandbox::start(spec).await.unwrap_err() else {
            panic!("another error");
        };
        assert!(
            source.to_string().contains("no-such-layer/upper"),
            "{source}"
        );
    });
}
