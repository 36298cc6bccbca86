//! What is shown of a shell, who gets in, and what is found of a build that is no friend.

use std::{
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
};

use protocol::{
    lease::LeaseId,
    message::terminal::{TERMINALS_OF_ATTEMPT_MAX, TERMINALS_OF_WORKER_MAX},
};
use tokio::net::unix::OwnedWriteHalf;

use super::*;
use crate::secrets::Patterns;

fn place(secret: Option<&str>) -> Place {
    let patterns = secret.map(|secret| {
        let secrets = [("TOKEN", secret.as_bytes())];
        Arc::new(Patterns::new(secrets.into_iter(), 4).unwrap())
    });
    Place::new(nowhere(), patterns)
}

fn nowhere() -> Meeting {
    Meeting {
        root: PathBuf::from("/"),
        below: PathBuf::from("/"),
    }
}

/// An attempt that is over.
fn over(interrupt: Option<Interrupt>) -> Place {
    let place = place(None);
    place.close(interrupt);
    place
}

/// What a person sees of what `shell` says and does.
async fn seen(place: Place, shell: impl AsyncFnOnce(OwnedWriteHalf)) -> (String, TerminalOutput) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (shown, _keys) = ours.into_split();
    let (screen, mut person) = mpsc::channel(HANDED_MAX);
    let (_input, says) = theirs.into_split();
    let looks = async {
        let mut seen = Vec::new();
        loop {
            match person.recv().await.unwrap() {
                TerminalOutput::Bytes(bytes) => seen.extend(bytes),
                last => break (String::from_utf8(seen).unwrap(), last),
            }
        }
    };
    let (_, (), seen) = tokio::join!(show(shown, &place, screen), shell(says), looks);
    seen
}

async fn say(to: &mut OwnedWriteHalf, text: &str) {
    let output = TerminalOutput::Bytes(text.as_bytes().to_vec());
    write(to, &output).await.unwrap();
}

#[tokio::test]
async fn a_secret_is_not_shown_however_it_is_cut_and_the_rest_is_at_once() {
    let (seen, last) = seen(place(Some("hunter2-and-more")), async |mut shell| {
        say(&mut shell, "it is hunter2").await;
        say(&mut shell, "-and-more, $ hun").await;
        write(&mut shell, &TerminalOutput::Ended(7)).await.unwrap();
    })
    .await;
    assert_eq!(seen, "it is ***, $ hun");
    assert_eq!(last, TerminalOutput::Ended(7));
}

#[tokio::test]
async fn what_could_become_a_secret_is_shown_or_masked_when_nothing_follows() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (shown, _keys) = ours.into_split();
    let (_input, mut shell) = theirs.into_split();
    let (screen, mut person) = mpsc::channel(HANDED_MAX);
    let place = place(Some("hunter2-and-more"));
    place.close(None);
    let talks = async {
        // No more is said before it is shown.
        say(&mut shell, "$ hu").await;
        let mut seen = String::new();
        while seen != "$ hu" {
            let Some(TerminalOutput::Bytes(bytes)) = person.recv().await else {
                panic!("it has not ended");
            };
            seen += std::str::from_utf8(&bytes).unwrap();
        }
        drop(shell);
        let last = person.recv().await;
        assert_eq!(last, Some(TerminalOutput::Gone(Gone::GoesOn)));
    };
    tokio::join!(show(shown, &place, screen), talks);
}

#[tokio::test]
async fn a_shell_that_is_gone_says_why_and_nonsense_ends_it() {
    for (interrupt, why) in [
        (None, Gone::GoesOn),
        (Some(Interrupt::Stopped), Gone::Stopped),
        (Some(Interrupt::TimedOut), Gone::TimedOut),
        (Some(Interrupt::Lost), Gone::WorkerLost),
    ] {
        let (_, last) = seen(over(interrupt), async |shell| drop(shell)).await;
        assert_eq!(last, TerminalOutput::Gone(why));
    }
    // A breakpoint that the build itself has killed.
    let (_, last) = seen(place(None), async |shell| drop(shell)).await;
    assert_eq!(last, TerminalOutput::Gone(Gone::GoesOn));
    for nonsense in [&[0xff; 4][..], &[0, 0x80, 0, 0], &[1, 0, 0, 0, 0xff]] {
        let (_, last) = seen(over(None), async |mut shell| {
            shell.write_all(nonsense).await.unwrap();
        })
        .await;
        assert_eq!(last, TerminalOutput::Gone(Gone::GoesOn));
    }
}

#[test]
fn so_many_terminals_are_open_and_no_more() {
    let terminals = Terminals::default();
    let leases = u64::try_from(TERMINALS_OF_WORKER_MAX / TERMINALS_OF_ATTEMPT_MAX).unwrap();
    assert!(terminals.enter(LeaseId(0)).is_err(), "it is not debugged");
    let mut open = Vec::new();
    for lease in (0..=leases).map(LeaseId) {
        terminals.open(lease, nowhere(), None);
    }
    for lease in (0..leases).map(LeaseId) {
        for _ in 0..TERMINALS_OF_ATTEMPT_MAX {
            open.push(terminals.enter(lease).unwrap());
        }
        assert!(terminals.enter(lease).is_err(), "the attempt has enough");
    }
    assert!(terminals.enter(LeaseId(leases)).is_err(), "the worker has");
    // Those of an attempt that is over count until they are gone.
    terminals.close(LeaseId(leases - 1), Some(Interrupt::Stopped));
    assert!(terminals.enter(LeaseId(leases)).is_err(), "the worker has");
    drop(open.pop());
    assert!(terminals.enter(LeaseId(leases)).is_ok());
    terminals.close(LeaseId(leases), Some(Interrupt::Stopped));
    assert_eq!(terminals.enter(LeaseId(leases)).err(), Some(NOT_PAUSED));
}

#[tokio::test]
async fn links_of_a_build_lead_nowhere_and_those_of_the_farm_do() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("meeting");
    std::fs::create_dir(&inside).unwrap();
    let _listener = UnixListener::bind(inside.join(DEBUG_SOCKET)).unwrap();
    let other = root.path().join("other");
    std::fs::create_dir(&other).unwrap();
    symlink(inside.join(DEBUG_SOCKET), other.join(DEBUG_SOCKET)).unwrap();
    symlink(&inside, root.path().join("link")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let linked_root = elsewhere.path().join("root");
    symlink(root.path(), &linked_root).unwrap();
    for (root, below, is_found) in [
        (root.path(), "/meeting", true),
        (&linked_root, "meeting", true),
        (root.path(), "/link", false),
        (root.path(), "/other", false),
        (root.path(), "/gone", false),
    ] {
        let meeting = Meeting {
            root: root.to_owned(),
            below: PathBuf::from(below),
        };
        let connected = connect(Arc::new(Place::new(meeting, None))).await;
        assert_eq!(connected.is_ok(), is_found, "{below}: {connected:?}");
    }
}
