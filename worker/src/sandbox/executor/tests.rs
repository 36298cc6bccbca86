//! What the loop does with what is in the socket before it looks at it, as after a long sleep.

use std::{os::unix::net::UnixStream, path::PathBuf};

use nix::sys::{signal::SigSet, signalfd::SfdFlags};
use protocol::worker::Isolation;
use rustix::process::waitpid;

use super::{super::control::framed, *};
use crate::clock;

/// A loop whose fence is at `until`, with its worker's end, below `directory`.
fn begun(directory: &Path, until: Time) -> (Loop, UnixStream) {
    let (workers, keepers) = UnixStream::pair().unwrap();
    let spec = SandboxSpec {
        isolation: Isolation::Host,
        upper: PathBuf::new(),
        work: directory.to_owned(),
        lowers: Vec::new(),
        hidden: Vec::new(),
        docker_socket: None,
        user: None,
        source_directory: directory.to_owned(),
        home: directory.to_owned(),
        variables: BTreeMap::new(),
        directory: directory.as_os_str().as_encoded_bytes().to_vec(),
        shell: protocol::job::Shell::Sh,
        state: ShellState::Carried,
        until: Some(until),
        lock: None,
        wipe: Vec::new(),
        program: PathBuf::new(),
        helpers: Vec::new(),
    };
    let parts = Executor {
        control: KeeperControl::new(keepers).unwrap(),
        signals: SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_NONBLOCK).unwrap(),
        log: None,
        state: StateDirectory::open(directory).unwrap(),
        spec: Box::new(spec.clone()),
        scope: Scope::Descendants,
    };
    let begun = Loop {
        fence: Fence::new(spec.until).unwrap(),
        carried: Carried {
            variables: spec.variables,
            directory: spec.directory,
        },
        unnamed: BTreeMap::new(),
        running: None,
        user: None,
        is_unheard: false,
        parts,
    };
    (begun, workers)
}

fn ask(worker: &mut UnixStream, request: &Request) {
    worker.write_all(&framed(request).unwrap()).unwrap();
}

fn run() -> Request {
    Request::Run {
        id: 1,
        command: "true".to_owned(),
    }
}

#[test]
fn what_was_asked_for_before_the_fence_is_not_begun_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut begun, mut worker) = begun(directory.path(), Time(1));
    ask(&mut worker, &run());
    assert!(!begun.carry_out_all(), "it is over");
    assert!(begun.running.is_none(), "no process was started");
    assert!(!begun.parts.state.script().exists(), "nothing was prepared");
}

#[test]
fn a_later_fence_that_came_with_what_was_asked_for_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut begun, mut worker) = begun(directory.path(), Time(1));
    ask(&mut worker, &run());
    let later = clock::boot() + std::time::Duration::from_secs(60);
    ask(&mut worker, &Request::Until(later.0));
    assert!(begun.carry_out_all(), "it goes on");
    let running = begun.running.expect("it was started");
    waitpid(Some(running.pid), WaitOptions::empty()).unwrap();
}
