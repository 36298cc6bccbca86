//! The cache is killed, and the power goes, at any moment while it is written to: every chunk, tree and
//! reference that it acknowledged is there after the next start, and is what it was.

mod writing;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use testkit::{
    farm::{Farm, FarmPlan},
    random::Random,
    wait,
};
use tokio::runtime::Runtime;
use transport::{Credentials, JoinToken};

use self::writing::{Acknowledged, Member};
use crate::power::disk::{self, Disk};

/// How often the cache is killed.
fn kills() -> u32 {
    if testkit::slow_tests() { 150 } else { 7 }
}

/// How often the power goes.
fn cuts() -> u32 {
    if testkit::slow_tests() { 50 } else { 3 }
}

/// How often the cache of one farm ends; then another farm is started, so that what was acknowledged fits
/// on the disk.
const ENDS_OF_ONE: u32 = 10;
/// How long is written before the end at most, in milliseconds.
const WRITTEN_MILLIS_MAX: u64 = 1_200;
/// How much longer each time, as long as nothing has gone past the log.
const LONGER_MILLIS: u64 = 1_000;
/// Buffers of a store of this size become files, and files other files, many times in a run; nothing that is
/// written here has to be evicted from it.
const SETTINGS: &str = "[cache]\nbytes_max = 1900000000\nfree_bytes_min = 1048576\n";
/// How many chunks the cache has written in bulk since it was started.
const BULK_CHUNKS: &str = "grange_cache_bulk_chunks_total ";

/// How the cache ends.
enum End<'a> {
    Kill,
    Cut(&'a Disk),
}

/// A farm whose cache ends again and again.
struct Site {
    farm: Farm,
    credentials: Credentials,
    runtime: Runtime,
    random: Random,
    all: Acknowledged,
    /// Where the cache says what it has done.
    metrics: SocketAddr,
    /// How many chunks went past the log, as far as was seen.
    bulk_chunks: u64,
    /// How often the cache has ended.
    ends: u64,
}

impl Site {
    fn new(seed: u64, plan: FarmPlan) -> Self {
        // Free a moment ago.
        let metrics = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let metrics = metrics.unwrap();
        let farm = Farm::start(FarmPlan {
            workers: 0,
            settings: format!("{SETTINGS}metrics_listen = '{metrics}'\n"),
            ..plan
        });
        let runtime = Runtime::new().unwrap();
        let token: JoinToken = farm.token("developer").parse().unwrap();
        let address = farm.address.parse().unwrap();
        let enrol = transport::enrol(address, &token, "writer");
        let credentials = runtime.block_on(enrol).unwrap();
        Self {
            farm,
            credentials,
            runtime,
            random: Random::new(seed),
            all: Acknowledged::default(),
            metrics,
            bulk_chunks: 0,
            ends: 0,
        }
    }

    /// Adds what went past the log since the cache was started.
    fn count_bulk(&mut self) {
        let mut said = String::new();
        let mut asked = TcpStream::connect(self.metrics).unwrap();
        asked.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        asked.read_to_string(&mut said).unwrap();
        let count = said.lines().find_map(|line| line.strip_prefix(BULK_CHUNKS));
        self.bulk_chunks += count.map_or(0, |count| count.trim().parse().unwrap());
    }

    fn member(&self) -> Member {
        Member {
            credentials: self.credentials.clone(),
            cache: self.farm.cache_address.parse().unwrap(),
        }
    }

    /// Has the cache written to for a moment of at least `at_least` milliseconds, and ends it in the middle
    /// of that; gives what was acknowledged.
    fn write(&mut self, at_least: u64, end: &End<'_>) -> Acknowledged {
        let new = Arc::new(Mutex::new(Acknowledged::default()));
        let seed = self.random.below(1 << 40);
        let member = self.member();
        let writers = {
            let _runtime = self.runtime.enter();
            writing::start(&member, seed, &new)
        };
        let later = at_least + self.random.below(WRITTEN_MILLIS_MAX);
        wait::moment(Duration::from_millis(later));
        self.count_bulk();
        let acknowledged = match end {
            End::Kill => {
                self.farm.kill_cache();
                drop(writers);
                new
            }
            End::Cut(disk) => {
                // Linux answers some syncs that are under way when the file system is shut down with
                // success, though they were not done; a disk without power answers none.
                let before = std::mem::take(&mut *new.lock().unwrap());
                disk.cut();
                wait::moment(Duration::from_millis(self.random.below(200)));
                self.farm.kill_cache();
                drop(writers);
                disk.restore();
                Arc::new(Mutex::new(before))
            }
        };
        std::mem::take(&mut *acknowledged.lock().unwrap())
    }

    /// Starts the cache again; now and then it is killed while it still does what it does first.
    fn restart(&mut self) {
        self.farm.start_cache();
        if self.random.below(4) == 0 {
            self.farm.kill_cache();
            self.farm.start_cache();
        }
    }

    /// What is lost, of all that was ever acknowledged; what is `new` is read and verified, of the rest some.
    fn lost(&mut self, new: Acknowledged) -> Vec<String> {
        let mut read = self.all.sample(&mut self.random);
        read.extend(new.clone());
        self.all.extend(new);
        let member = self.member();
        self.runtime.block_on(async {
            let client = member.connect().await;
            writing::lost(&client, &self.all, &read).await
        })
    }

    /// Lets the cache crash once, and checks that nothing is lost.
    fn check(&mut self, what: &str, end: &End<'_>) {
        // Until something has gone past the log each time is longer: a slow machine may bring little in a moment.
        let at_least = match self.bulk_chunks {
            0 => self.ends * LONGER_MILLIS,
            _ => 0,
        };
        self.ends += 1;
        let new = self.write(at_least, end);
        self.restart();
        let (count, bulk) = (new.count(), self.bulk_chunks);
        testkit::tell(&format!(
            "{what}: {count} acknowledged, {bulk} chunks past the log so far"
        ));
        let lost = self.lost(new);
        assert!(lost.is_empty(), "{what}: {lost:#?}");
    }

    /// Reads and verifies everything.
    fn check_all(mut self) {
        let all = std::mem::take(&mut self.all);
        assert!(0 < all.count());
        let lost = self.lost(all);
        assert!(lost.is_empty(), "at the end: {lost:#?}");
        assert!(0 < self.bulk_chunks, "nothing went past the log");
    }
}

/// A farm whose cache has its store on `disk`.
fn on(disk: &Disk) -> FarmPlan {
    FarmPlan {
        cache_directory: Some(disk.path().join("cache")),
        ..FarmPlan::default()
    }
}

#[test]
fn a_cache_that_is_killed_at_any_moment_has_all_that_it_acknowledged() {
    for first in (0..kills()).step_by(ENDS_OF_ONE as usize) {
        let mut site = Site::new(u64::from(first), FarmPlan::default());
        for number in first..kills().min(first + ENDS_OF_ONE) {
            site.check(&format!("kill {number}"), &End::Kill);
        }
        site.check_all();
    }
}

#[test]
fn a_cache_whose_power_goes_at_any_moment_has_all_that_it_acknowledged() {
    for first in (0..cuts()).step_by(ENDS_OF_ONE as usize) {
        let Some(disk) = Disk::new() else { return };
        let mut site = Site::new(1_000 + u64::from(first), on(&disk));
        for number in first..cuts().min(first + ENDS_OF_ONE) {
            site.check(&format!("cut {number}"), &End::Cut(&disk));
        }
        site.check_all();
    }
}

#[test]
fn without_the_sync_of_the_log_a_power_cut_is_seen_to_lose_what_was_acknowledged() {
    let library = tempfile::tempdir().unwrap();
    let Some(library) = disk::unsynced(Path::new(library.path())) else {
        return;
    };
    let Some(disk) = Disk::new() else { return };
    let plan = FarmPlan {
        cache_preload: Some(library),
        ..on(&disk)
    };
    let mut site = Site::new(2_000, plan);
    let new = site.write(500, &End::Cut(&disk));
    assert!(0 < new.count(), "nothing was written");
    let lost = catch_unwind(AssertUnwindSafe(|| {
        site.restart();
        site.lost(new)
    }));
    // A store that does not even open has lost what it had.
    if let Ok(lost) = lost {
        assert!(!lost.is_empty(), "the test would not notice a missing sync");
    }
}
