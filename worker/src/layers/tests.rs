//! What the worker promises of its unpacked layers.

use std::{
    convert::Infallible,
    fs,
    future::ready,
    io,
    path::PathBuf,
    pin::pin,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use cache::ongoing::Ongoing;

use super::{LayerError, LayerFacts, LayerKey, LayerUse, Layers, remove};

fn key(number: u32) -> LayerKey {
    LayerKey(format!("{number:032x}"))
}

fn facts(bytes: u64) -> LayerFacts {
    LayerFacts { bytes, newest: 7 }
}

struct Fixture {
    folder: tempfile::TempDir,
    scratches: AtomicU32,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            scratches: AtomicU32::new(0),
        }
    }

    fn open(&self, budget: u64) -> Layers {
        Layers::open(&self.folder.path().join("layers"), budget).unwrap()
    }

    fn scratch(&self) -> PathBuf {
        let number = self.scratches.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("scratch-{number}"))
    }

    async fn obtain(&self, layers: &Layers, number: u32, bytes: u64) -> LayerUse {
        let fill = async |to: PathBuf| {
            fs::create_dir(&to).unwrap();
            fs::write(to.join("file"), number.to_string()).unwrap();
            Ok::<_, Infallible>(facts(bytes))
        };
        layers
            .obtain(&key(number), self.scratch(), fill)
            .await
            .unwrap()
    }

    fn listed(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("layers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.contains('.')).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn many_who_want_a_layer_at_once_unpack_it_once() {
    let fixture = Fixture::new();
    let layers = fixture.open(1_000);
    let fills = AtomicU32::new(0);
    let want = || async {
        let fill = async |to: PathBuf| {
            fills.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            fs::create_dir(&to)?;
            Ok::<_, io::Error>(facts(1))
        };
        let held = layers
            .obtain(&key(1), fixture.scratch(), fill)
            .await
            .unwrap();
        assert!(held.path().is_dir());
        held.was_there()
    };
    let (a, b, c) = tokio::join!(want(), want(), want());
    assert_eq!(fills.load(Ordering::Relaxed), 1);
    assert_eq!([a, b, c].into_iter().filter(|&there| there).count(), 2);
}

#[tokio::test]
async fn a_layer_that_could_not_be_unpacked_is_tried_again() {
    let fixture = Fixture::new();
    let layers = fixture.open(1_000);
    let failed = layers
        .obtain(&key(1), fixture.scratch(), async |_| {
            Err::<LayerFacts, _>("no network")
        })
        .await;
    assert!(matches!(failed, Err(LayerError::Fill("no network"))));
    let held = fixture.obtain(&layers, 1, 1).await;
    assert!(!held.was_there());
    assert_eq!(fs::read_to_string(held.path().join("file")).unwrap(), "1");
}

#[test]
fn a_layer_comes_to_its_place_although_who_asked_for_it_gave_up() {
    // One thread that may block, so that the way into the place can be held up.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new();
        let layers = fixture.open(1_000);
        let (open, gate) = mpsc::channel::<()>();
        let held_up = tokio::task::spawn_blocking(move || gate.recv());
        {
            let mut given_up = pin!(fixture.obtain(&layers, 1, 5));
            tokio::select! {
                biased;
                _ = &mut given_up => panic!("it waits for its place"),
                () = ready(()) => {}
            }
        }
        let mut next = pin!(fixture.obtain(&layers, 1, 5));
        tokio::select! {
            biased;
            _ = &mut next => panic!("it waits, too"),
            () = ready(()) => {}
        }
        open.send(()).unwrap();
        held_up.await.unwrap().unwrap();
        assert!(next.await.was_there(), "it was there, and is used");
        let again = fixture.obtain(&layers, 1, 5).await;
        assert!(again.was_there() && again.facts() == facts(5));
    });
}

#[tokio::test]
async fn what_was_given_up_does_not_come_to_its_place_and_is_unpacked_anew() {
    let fixture = Fixture::new();
    let layers = fixture.open(1_000);
    let ongoing = Ongoing::default();
    ongoing.give_up();
    // Whoever gives up may be about to remove what was filled.
    let fill = async |to: PathBuf| fs::create_dir(&to).map(|()| facts(1));
    let (key, scratch) = (key(1), fixture.scratch());
    let given_up = ongoing.scope(layers.obtain(&key, scratch, fill)).await;
    assert!(matches!(given_up, Err(LayerError::Place { .. })));
    let held = fixture.obtain(&layers, 1, 5).await;
    assert!(!held.was_there());
    assert_eq!(fs::read_to_string(held.path().join("file")).unwrap(), "1");
}

#[tokio::test]
async fn the_least_recently_used_layer_goes_and_one_in_use_stays() {
    let fixture = Fixture::new();
    let layers = fixture.open(25);
    let in_use = fixture.obtain(&layers, 1, 10).await;
    drop(fixture.obtain(&layers, 2, 10).await);
    drop(fixture.obtain(&layers, 3, 10).await);
    // 1 is the oldest and in use, so 2 went.
    assert_eq!(fixture.listed(), [key(1).0, key(3).0]);
    drop(in_use);
    drop(fixture.obtain(&layers, 4, 10).await);
    assert_eq!(fixture.listed(), [key(3).0, key(4).0]);
    let again = fixture.obtain(&layers, 2, 10).await;
    assert!(!again.was_there(), "it was unpacked anew");
}

#[tokio::test]
async fn a_restart_finds_whole_layers_and_removes_the_rest() {
    let fixture = Fixture::new();
    drop(fixture.obtain(&fixture.open(1_000), 1, 7).await);
    let directory = fixture.folder.path().join("layers");
    fs::create_dir(directory.join("9.deleted")).unwrap();
    fs::create_dir(directory.join(&key(2).0)).unwrap();
    fs::write(directory.join(format!("{}.facts", key(3).0)), "5").unwrap();
    let layers = fixture.open(1_000);
    let mut left: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [key(1).0, format!("{}.facts", key(1).0)]);
    let found = fixture.obtain(&layers, 1, 99).await;
    assert!(found.was_there());
    assert_eq!(found.facts(), facts(7));
}

#[tokio::test]
async fn a_captured_directory_becomes_the_layer_without_a_copy() {
    let fixture = Fixture::new();
    let layers = fixture.open(1_000);
    let upper = fixture.scratch();
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("made"), "x").unwrap();
    layers
        .adopt(&key(1), upper.clone(), facts(1))
        .await
        .unwrap();
    assert!(!upper.exists());
    let held = fixture.obtain(&layers, 1, 1).await;
    assert!(held.was_there());
    assert!(held.path().join("made").exists());
}

#[test]
fn what_nobody_may_write_to_can_be_removed_and_what_is_gone_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let modules = folder.path().join("pkg/mod");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("file"), b"x").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::set_permissions(&modules, closed).unwrap();
    let top = folder.path().join("pkg");
    // Whoever may do anything would not notice the mode, so such a test proves little as root.
    remove(&top).unwrap();
    assert!(!top.exists());
    remove(&top).unwrap();
}

#[tokio::test]
async fn after_a_power_cut_only_durable_layers_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (layers_at, scratch) = (folder.path().join("layers"), folder.path().join("scratch"));
    let facts = LayerFacts {
        bytes: 7,
        newest: 9,
    };
    let there = |layers: &Layers, key: &LayerKey| layers.facts(key);
    let put = async |layers: &Layers, number| {
        fs::create_dir(&scratch).unwrap();
        let adopted = layers.adopt(&key(number), scratch.clone(), facts).await;
        adopted.unwrap();
    };
    let layers = Layers::open_in("boot-1", &layers_at, 1_000).unwrap();
    put(&layers, 1).await;
    layers.make_durable().unwrap();
    put(&layers, 2).await;
    // The worker was started again, the machine was not.
    let layers = Layers::open_in("boot-1", &layers_at, 1_000).unwrap();
    assert_eq!([1, 2].map(|n| there(&layers, &key(n))), [Some(facts); 2]);
    let layers = Layers::open_in("boot-2", &layers_at, 1_000).unwrap();
    let found = [1, 2].map(|n| there(&layers, &key(n)));
    assert_eq!(found, [Some(facts), None]);
    assert_eq!(fs::read_dir(&layers_at).unwrap().count(), 2);
    put(&layers, 2).await;
    assert_eq!(there(&layers, &key(2)), Some(facts));
}
