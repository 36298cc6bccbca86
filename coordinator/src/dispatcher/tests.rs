//! The dispatcher with sessions that are only channels.

use std::{fs, path::Path};

use buildspec::PlanRequest;
use protocol::{
    access::Trust,
    blob::{Blob, TreeRef},
    build::BuildId,
    digest::Digest,
    worker::{Incarnation, Isolation, WorkerOffer},
};
use scheduler::{Config, Fact, State, Submission, Terms};
use tokio::task::JoinSet;

use super::*;
use crate::{journal::Replayed, retention};

const BUILD: BuildId = BuildId(7);

/// A dispatcher that runs on a journal in `home`.
struct Running {
    dispatcher: Dispatcher,
    stop: CancellationToken,
    task: JoinSet<Result<(), DispatchError>>,
}

/// A dispatcher's desk with a journal in `home`.
fn desk(home: &Path, config: Config) -> Desk {
    let (journal, facts) = open(&home.join("journal"));
    let mut scheduler = Scheduler::new(config);
    for fact in &facts {
        scheduler.replay(fact).unwrap();
    }
    scheduler.recovered(clock::both());
    Desk {
        scheduler,
        journal,
        signer: Arc::new(GrantSigner::create()),
        build_url: None,
        bells: Arc::default(),
        chores: retention::queue().0,
        health: Health::default(),
        sessions: BTreeMap::new(),
        putting: JoinSet::new(),
    }
}

impl Running {
    fn start(home: &Path) -> Self {
        let desk = desk(home, Config::default());
        let (dispatcher, orders) = queue();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(desk.run(orders, stop.clone()));
        Self {
            dispatcher,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        for ended in self.task.join_all().await {
            ended.unwrap();
        }
    }

    /// A worker joins that takes so many messages without reading them.
    async fn join(&self, number: u64, room: usize) -> mpsc::Receiver<CoordinatorMessage> {
        let (messages, outbox) = mpsc::channel(room);
        let session = SessionId(number);
        let cache = "127.0.0.1:1".parse().unwrap();
        let attached = Outbox { messages, cache };
        self.dispatcher.attach(session, attached).await.unwrap();
        let offer = WorkerOffer {
            name: format!("w{number}").parse().unwrap(),
            capacity: 1,
            labels: BTreeMap::new(),
            architecture: "x86_64".to_owned(),
            isolation: Isolation::Host,
            base: Digest::of(b"base"),
            runtimes: Default::default(),
        };
        let joined = Event::WorkerJoined {
            session,
            team: "red".parse().unwrap(),
            incarnation: Incarnation(number),
            connection: 1,
            ended: None,
            leaving: false,
            offer: Box::new(offer),
            holds: Vec::new(),
        };
        self.dispatcher.apply(joined, |_| ()).await.unwrap();
        outbox
    }

    async fn renew(&self, number: u64, sequence: u64) {
        let renew = Event::Renew {
            session: SessionId(number),
            sequence,
            leases: Vec::new(),
        };
        self.dispatcher.apply(renew, |_| ()).await.unwrap();
    }

    async fn submit(&self) -> bool {
        let submit = Event::Submit(Box::new(submission()));
        let known = |state: &State| scheduler::is_ended(state, BUILD);
        self.dispatcher.apply(submit, known).await.unwrap() == Some(false)
    }
}

fn submission() -> Submission {
    let text = "version: 0.2\nphases:\n  build:\n    commands: [make]\n";
    let spec = buildspec::parse(text).spec.unwrap();
    let blob = Blob {
        digest: Digest::of(b""),
        chunks: Vec::new(),
    };
    Submission {
        build: BUILD,
        team: "red".parse().unwrap(),
        namespace: "red".parse().unwrap(),
        project: "app".parse().unwrap(),
        trust: Trust::Team,
        initiator: "anna".to_owned(),
        source: Some(TreeRef {
            tree: blob.clone(),
            attributes: blob.clone(),
            layout: blob,
        }),
        source_version: None,
        graph: buildspec::plan(&spec, &PlanRequest::default()).unwrap(),
        reruns: BTreeMap::new(),
        priority: 0,
        terms: Terms::default(),
    }
}

/// The journal, and the facts in it.
fn open(path: &Path) -> (Journal, Vec<Fact>) {
    let mut facts = Vec::new();
    let journal = Journal::open(path, &mut |replayed| {
        match replayed {
            Replayed::State(_) => panic!("no state was put"),
            Replayed::Record(line) => facts.push(record::decode(line)?),
        }
        Ok(())
    });
    (journal.unwrap(), facts)
}

/// What would be found if the power went now.
fn facts_on_disk(home: &Path) -> Vec<Fact> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(home.join("journal")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    open(copy.path()).1
}

#[tokio::test]
async fn what_a_worker_or_a_client_is_told_is_on_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(home.path());
    assert!(running.submit().await);
    let facts = facts_on_disk(home.path());
    assert!(matches!(facts[..], [Fact::BuildSubmitted { .. }]));
    let mut worker = running.join(1, 8).await;
    let joined = worker.recv().await;
    assert!(matches!(joined, Some(CoordinatorMessage::Joined { .. })));
    let Some(CoordinatorMessage::Assign(assignment)) = worker.recv().await else {
        panic!("the first phase should be assigned");
    };
    assert_eq!(assignment.grant.signature.len(), 64);
    let facts = facts_on_disk(home.path());
    let Some(Fact::LeaseGranted { lease, .. }) = facts.last() else {
        panic!("the lease should be the last fact");
    };
    assert_eq!(*lease, assignment.lease);
    running.stop().await;

    // The next coordinator knows the build, and does not take it twice.
    let running = Running::start(home.path());
    let known = running.dispatcher.ask(scheduler::counts).await.unwrap();
    assert_eq!((known.builds_active, known.leases), (1, 1));
    assert!(running.submit().await);
    assert_eq!(facts_on_disk(home.path()).len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn what_comes_at_once_is_synced_at_once() {
    const COUNT: u128 = 50;
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(home.path());
    // The dispatcher shares this thread, and has no turn before the queue is full.
    for number in 1..=COUNT {
        let submission = Submission {
            build: BuildId(number),
            ..submission()
        };
        let submit = Event::Submit(Box::new(submission));
        running.dispatcher.tell(submit).await.unwrap();
    }
    let counts = running.dispatcher.ask(scheduler::counts).await.unwrap();
    assert_eq!(counts.builds_active, 50);
    let facts = facts_on_disk(home.path());
    assert_eq!(facts.len(), 50);
    // Whatever is on the disk besides the facts and their line ends is headers, 32 bytes for the file and
    // for each group.
    let lines: usize = facts
        .iter()
        .map(|fact| record::encode(fact).len() + 1)
        .sum();
    let mut files = fs::read_dir(home.path().join("journal")).unwrap();
    let file = files.next().unwrap().unwrap();
    let headers = file.metadata().unwrap().len() - lines as u64;
    assert!(headers <= 32 * (1 + 3), "{} groups", headers / 32 - 1);
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_takes_no_messages_is_cut_off_and_holds_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(home.path());
    let mut slow = running.join(1, 2).await;
    let mut quick = running.join(2, 8).await;
    for sequence in 0..3 {
        running.renew(1, sequence).await;
        running.renew(2, sequence).await;
    }
    let mut told = Vec::new();
    while let Some(message) = slow.recv().await {
        told.push(message);
    }
    assert_eq!(told.len(), 2, "what there was room for, and then the end");
    for expected in 0..4 {
        let message = quick.recv().await;
        let sequence = match message {
            Some(CoordinatorMessage::Joined { .. }) => 0,
            Some(CoordinatorMessage::Renewed { sequence, .. }) => sequence + 1,
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(sequence, expected);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_without_a_word_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(home.path());
    let mut worker = running.join(1, 8).await;
    running.dispatcher.left(SessionId(1));
    // What the session was told before it left, and then the end of its outbox.
    let joined = worker.recv().await;
    assert!(matches!(joined, Some(CoordinatorMessage::Joined { .. })));
    assert_eq!(worker.recv().await, None);
    let counts = running.dispatcher.ask(scheduler::counts).await.unwrap();
    assert_eq!(counts.workers, 0);
    running.stop().await;
}

#[tokio::test]
async fn time_moves_under_a_flood_of_questions() {
    let home = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.limits.queue = Duration::from_millis(1);
    let mut desk = desk(home.path(), config);
    let stop = CancellationToken::new();
    let submit = Order::Event(Event::Submit(Box::new(submission())), None);
    desk = desk.decide(vec![submit], &stop).await.unwrap();
    // Nothing takes the time to be told of it, and the deadline passes.
    while desk.scheduler.next_deadline().wait(clock::both()) != Some(Duration::ZERO) {
        tokio::task::yield_now().await;
    }
    let (told, mut answer) = mpsc::channel(1);
    let question = Order::Ask(Box::new(move |state| {
        told.try_send(scheduler::is_ended(state, BUILD)).unwrap();
    }));
    desk.decide(vec![question], &stop).await.unwrap();
    assert_eq!(answer.recv().await, Some(Some(true)));
}

#[tokio::test]
async fn the_state_is_put_beside_while_facts_go_on() {
    let home = tempfile::tempdir().unwrap();
    let mut desk = desk(home.path(), Config::default());
    let stop = CancellationToken::new();
    let submit = |number| {
        let submission = Submission {
            build: BuildId(number),
            ..submission()
        };
        Order::Event(Event::Submit(Box::new(submission)), None)
    };
    desk = desk.decide(vec![submit(1)], &stop).await.unwrap();
    desk = desk.put_state().await;
    assert_eq!(desk.putting.len(), 1);
    desk = desk.decide(vec![submit(2)], &stop).await.unwrap();
    desk.end().await.unwrap();

    let mut kept = Vec::new();
    let open = Journal::open(&home.path().join("journal"), &mut |replayed| {
        match replayed {
            Replayed::State(state) => {
                let ledger = record::decode_state(state)?;
                let known = Scheduler::restored(Config::default(), ledger);
                kept.push(scheduler::counts(known.state()).builds_active);
            }
            Replayed::Record(_) => kept.push(0),
        }
        Ok(())
    });
    open.unwrap();
    assert_eq!(
        kept,
        [1, 0],
        "the state with one build, and one fact after it"
    );
}
