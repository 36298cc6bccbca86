//! All that a process started, directly or not: finding and killing it without a PID namespace.
//!
//! The keeper is the subreaper of what runs below it: an orphan becomes its child, however it tried to
//! get away. So as long as anything is left, some of it is a child of the keeper, and when the keeper
//! has no child, nothing is left.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, flock},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, pidfd_open,
        pidfd_send_signal, wait,
    },
    thread::{Timespec, nanosleep},
};

/// How often to look for what is left. A killed process is gone within a scheduling tick or two; one that
/// outlives this many rounds is stuck in the kernel, or belongs to another user.
const ROUNDS_MAX: u32 = 5_000;
/// How long to wait between rounds: the dying need the processor more.
const ROUND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// A process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Process {
    parent: i32,
    group: i32,
    /// In ticks since boot: with its number, what names a process.
    started: u64,
    dead: bool,
}

/// Kills all descendants of this process, again and again until none is left, and tells `reaped` of each
/// child that ended. Whether all are gone.
pub(super) fn kill_all(mut reaped: impl FnMut(Pid, WaitStatus)) -> bool {
    for _ in 0..ROUNDS_MAX {
        kill_round();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => reaped(pid, status),
                Ok(None) | Err(Errno::INTR) => break,
                Err(_) => return true,
            }
        }
        // Being woken early does no harm.
        let _ = nanosleep(&ROUND);
    }
    false
}

/// Waits until a process has ended, as long as [`kill_all`] does. Whether it has. Blocks.
pub(super) fn has_ended(process: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: i64::from(ROUNDS_MAX) / 1_000,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    // Signals are for other threads.
    poll(&mut polled, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// Waits until no keeper holds `lock` any more, as long as [`kill_all`] does, and kills what keepers that
/// were killed themselves have left: processes whose mark starts with `mark`. Whether nothing runs any
/// more, as far as one can see. Blocks.
pub(super) fn await_keepers(lock: &Path, mark: &[u8]) -> io::Result<bool> {
    let file = File::options().create(true).append(true).open(lock)?;
    for _ in 0..ROUNDS_MAX {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(kill_marked(mark));
        }
        // Being woken early does no harm.
        let _ = nanosleep(&ROUND);
    }
    Ok(false)
}

/// Kills all processes that have `mark`, the start of a variable with its value, in their environment, again and again
/// until none is left. Whether all are gone. Blocks.
pub(super) fn kill_marked(mark: &[u8]) -> bool {
    for _ in 0..ROUNDS_MAX {
        let table = read_table();
        let own = getpid().as_raw_nonzero().get();
        let is_marked = |pid: i32, seen: &Process| pid != own && !seen.dead && has_mark(pid, mark);
        let marked: Vec<_> = table
            .into_iter()
            .filter(|(pid, seen)| is_marked(*pid, seen))
            .collect();
        if marked.is_empty() {
            return true;
        }
        for (pid, seen) in marked {
            kill(pid, seen);
        }
        // Being woken early does no harm.
        let _ = nanosleep(&ROUND);
    }
    false
}

/// Whether a process was started with `mark`. One whose environment may not be read was not started by
/// us, or changed its user; nobody can tell.
fn has_mark(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|variables| {
        variables
            .split(|byte| *byte == 0)
            .any(|of| of.starts_with(mark))
    })
}

fn kill_round() {
    let own = getpid().as_raw_nonzero().get();
    let table = read_table();
    for pid in below(&table, own) {
        kill(pid, table[&pid]);
    }
}

/// Kills a process and its group: the group catches what is forked between looking and killing. All of
/// a group is in one session, and the sessions below the keeper are its own.
fn kill(pid: i32, seen: Process) {
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    // The number may have gone to a stranger since it was read; what is held now cannot.
    if read(pid.as_raw_nonzero().get()).map(|now| now.started) != Some(seen.started) {
        return;
    }
    // What cannot be killed is found again in the next round, and reported in the end.
    let sent = pidfd_send_signal(&held, Signal::KILL);
    let own = rustix::process::getpgrp();
    if let Some(group) = Pid::from_raw(seen.group)
        && group != own
        && sent.is_ok()
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The living among the descendants of `root`.
fn below(table: &BTreeMap<i32, Process>, root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = table
            .iter()
            .filter(|(pid, process)| process.parent == parent && **pid != parent);
        found.extend(children.map(|(pid, _)| *pid));
    }
    found.retain(|pid| *pid != root && !table[pid].dead);
    found
}

fn read_table() -> BTreeMap<i32, Process> {
    let mut table = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return table;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        if let Some((pid, process)) = pid.and_then(|pid| Some((pid, read(pid)?))) {
            table.insert(pid, process);
        }
    }
    table
}

fn read(pid: i32) -> Option<Process> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `/proc/PID/stat`: `PID (name) state parent group session …`, where the name may hold anything.
fn parse(stat: &[u8]) -> Option<Process> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // The start is field 22 of all, counted from 1; the group was field 5.
    let started = fields.nth(16)?.parse().ok()?;
    Some(Process {
        parent,
        group,
        started,
        dead: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_is_no_trap() {
        let stat = b"77 (a) S 1 (b) S 12 34 34 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2 3\n";
        let expected = Process {
            parent: 12,
            group: 34,
            started: 9876,
            dead: false,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse(b"77 (a"), None);
    }

    #[test]
    fn descendants_are_found_through_the_dead() {
        let process = |parent, dead| Process {
            parent,
            group: 1,
            started: 1,
            dead,
        };
        let table = BTreeMap::from([
            (10, process(1, false)),
            (11, process(10, true)),
            (12, process(11, false)),
            (13, process(1, false)),
        ]);
        assert_eq!(below(&table, 10), [12]);
    }
}
