//! Over a long path that is narrow and loses something: a restore beside a bare pump, with each congestion
//! controller, and four restores that share the path.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use cache::{
    capture::{Dialect, Subject},
    client::CacheClient,
    materialize::{Materialize, Owner, RootMode, materialize},
    progress::Progress,
    put::put,
};
use protocol::blob::TreeRef;
use testkit::relay::{LinkPlan, Passed, Relay, RelayPlan};
use tokio::task::JoinSet;
use transport::{Congestion, Datagrams};

use super::{
    process::{self, CachePlan, Process, Role, dial, runtime, team},
    reads,
};
use crate::{
    clock::{Stopwatch, median, spread},
    noise::Noise,
    report::Row,
};

/// How large the tree is, in files and bytes of each: nothing of it can be compressed.
const FILES: u64 = 40;
/// The same for a controller that has a hundredth of the path.
const SLOW_FILES: u64 = 2;
/// How many pairs others than the usual controller are measured with.
const OTHERS_PAIRS_MAX: u32 = 2;
const FILE_BYTES: usize = 5_000_000;
/// What share of the pump's rate a restore has to reach.
const PUMP_SHARE: f64 = 0.85;
/// How many restores share the path, what part of what is sent may be sent again, and what share each of
/// them is to get at least and at most, in percent.
const FLOWS: usize = 4;
const AGAIN_PERCENT_MAX: f64 = 5.0;
const SHARE_PERCENT_MIN: f64 = 15.0;
const SHARE_PERCENT_MAX: f64 = 40.0;
/// What no datagram does without, in bytes: a first byte, the id of the connection (8), a packet number (1), the seal
/// (16), and type and stream of what it brings. Those of a restore have 5 to 8 more, half a percent of a datagram.
const HEADER_BYTES_MIN: u64 = 1 + 8 + 1 + 16 + 2;

/// The path, in one direction.
fn link() -> LinkPlan {
    LinkPlan {
        bytes_per_second: Some(200_000_000 / 8),
        queue_bytes: 1_000_000,
        delay: std::time::Duration::from_millis(20),
        lost_of_million: 10_000,
        ..LinkPlan::default()
    }
}

fn relay(server: SocketAddr, seed: u64) -> Result<Relay> {
    Ok(Relay::start(server, RelayPlan::both(link(), seed))?)
}

/// What is measured with one controller.
struct Plan {
    congestion: Congestion,
    files: u64,
    pairs: u32,
}

/// Measures what comes without being asked for with so many pairs, and others beside it.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(super) fn measure(pairs: u32) -> Result<Vec<Row>> {
    let plan = |congestion, files, pairs| Plan {
        congestion,
        files,
        pairs,
    };
    let plans = [
        plan(Congestion::ByPath, FILES, pairs),
        plan(Congestion::Bbr, FILES, pairs.min(OTHERS_PAIRS_MAX)),
        plan(Congestion::Cubic, SLOW_FILES, pairs.min(OTHERS_PAIRS_MAX)),
    ];
    let mut rows = Vec::new();
    let (mut ours, mut best) = (None, 0.0_f64);
    for plan in plans {
        let directory = tempfile::tempdir()?;
        let stage = Stage::new(directory.path(), &plan)?;
        let beside = stage.beside_pump(plan.pairs)?;
        best = best.max(beside.pump);
        ours.get_or_insert(beside.row.value);
        rows.push(beside.row);
        rows.extend(stage.shared()?);
    }
    let missing = 1.0 - ours.unwrap_or_default() / best;
    rows.push(Row {
        name: "what a restore over a long path misses, ByPath".to_owned(),
        value: 100.0 * missing,
        unit: "%",
        ceiling: Some(100.0 - 100.0 * PUMP_SHARE),
        ratio: None,
        note: format!("of the best pump, which had {best:.1} MB/s"),
    });
    Ok(rows)
}

/// A restore beside a pump.
struct Beside {
    row: Row,
    /// What the pump had, in MB/s.
    pump: f64,
}

/// A cache that has the tree, and a pump, with one congestion controller.
struct Stage<'a> {
    farm: &'a Path,
    congestion: Congestion,
    files: u64,
    cache: (Process, SocketAddr),
    pump: (Process, SocketAddr),
    tree: TreeRef,
}

impl<'a> Stage<'a> {
    fn new(farm: &'a Path, plan: &Plan) -> Result<Self> {
        let (congestion, files) = (plan.congestion, plan.files);
        process::found(farm)?;
        let plan = CachePlan {
            farm: farm.to_owned(),
            directory: farm.join("cache"),
            budget: u64::MAX,
        };
        let mut cache = Process::start(&Role::FarCache { plan, congestion })?;
        let address = cache.hear()?;
        let mut pump = Process::start(&Role::FarPump {
            farm: farm.to_owned(),
            congestion,
        })?;
        let pumps = pump.hear()?;
        let source = farm.join("source");
        std::fs::create_dir_all(&source)?;
        let mut noise = Noise::new(1);
        for number in 0..files {
            std::fs::write(source.join(number.to_string()), noise.bytes(FILE_BYTES))?;
        }
        let tree = runtime()?.block_on(async {
            // Without the relay: what is measured is the way back.
            let client = client(farm, address).await?;
            let subject = Subject::all(source);
            anyhow::Ok(
                put(&client, subject, None, &Progress::default())
                    .await?
                    .tree,
            )
        })?;
        Ok(Self {
            farm,
            congestion,
            files,
            cache: (cache, address),
            pump: (pump, pumps),
            tree,
        })
    }

    fn bytes(&self) -> u64 {
        self.files * FILE_BYTES as u64
    }

    /// One restore; gives megabytes per second.
    fn restore(&self, seed: u64) -> Result<f64> {
        let relay = relay(self.cache.1, seed)?;
        let into = tempfile::tempdir_in(self.farm)?;
        runtime()?.block_on(async {
            let client = client(self.farm, relay.address).await?;
            let watch = Stopwatch::start();
            let into = into.path().join("tree");
            restore(&client, &self.tree, &into, Progress::default()).await?;
            Ok(megabytes(self.bytes()) / watch.elapsed().as_secs_f64())
        })
    }

    /// What controllers other than the usual one do is told for scale.
    fn goal(&self, goal: f64) -> Option<f64> {
        (self.congestion == Congestion::ByPath).then_some(goal)
    }

    fn beside_pump(&self, pairs: u32) -> Result<Beside> {
        let (mut ours, mut pumps) = (vec![], vec![]);
        for seed in 0..u64::from(pairs.max(2)) {
            ours.push(self.restore(seed)?);
            let relay = relay(self.pump.1, seed)?;
            let pumped = runtime()?.block_on(reads::receive(
                (self.farm, relay.address),
                self.bytes(),
                Datagrams::default(),
            ))?;
            pumps.push(pumped.megabytes_per_second());
        }
        let ratios = ours.iter().zip(&pumps).map(|(a, b)| a / b).collect();
        let (pump, spread) = (median(pumps.clone()), spread(&pumps));
        let row = Row {
            name: format!("restore over a long path, {:?}", self.congestion),
            value: median(ours),
            unit: "MB/s",
            ceiling: None,
            ratio: Some(median(ratios)),
            note: format!("x a pump ({pump:.1} MB/s, spread {spread:.2}); the path has 25 MB/s"),
        };
        Ok(Beside { row, pump })
    }

    /// Some restores at the same time over one relay: what is sent again until all of them have all, and what
    /// each has got when the first of them has all.
    fn shared(&self) -> Result<Vec<Row>> {
        let relay = relay(self.cache.1, 1)?;
        let into = tempfile::tempdir_in(self.farm)?;
        let got = runtime()?.block_on(async {
            let mut flows = JoinSet::new();
            let mut progress = Vec::new();
            for flow in 0..FLOWS {
                let client = client(self.farm, relay.address).await?;
                let (tree, into) = (self.tree.clone(), into.path().join(flow.to_string()));
                let own = Progress::default();
                progress.push(own.clone());
                flows.spawn(async move { restore(&client, &tree, &into, own).await });
            }
            flows.join_next().await.context("there are flows")???;
            let got: Vec<u64> = progress.iter().map(|own| own.now().bytes_moved).collect();
            while let Some(ended) = flows.join_next().await {
                ended??;
            }
            anyhow::Ok(got)
        })?;
        let passed = relay.passed();
        ensure!(passed.len() == FLOWS, "{} clients came", passed.len());
        let down: Vec<Passed> = passed.values().map(|(_, down)| *down).collect();
        let again = self.sent_again(&down);
        let [smallest, largest] = self.shares(&got);
        Ok(vec![again, smallest, largest])
    }

    /// What went down besides the trees, which cannot be compressed, each once. It does not matter why it was sent:
    /// what the path lost, what was only taken for lost, probes and acknowledgements all count.
    fn sent_again(&self, down: &[Passed]) -> Row {
        let sum = |of: fn(&Passed) -> u64| down.iter().map(of).sum::<u64>();
        let datagrams = sum(|passed| passed.datagrams);
        let sent = sum(|passed| passed.bytes) - HEADER_BYTES_MIN * datagrams;
        let useful = FLOWS as u64 * self.bytes();
        let percent_of = |count| 100.0 * megabytes(count) / megabytes(datagrams);
        Row {
            name: format!("four flows, sent again, {:?}", self.congestion),
            value: 100.0 * (1.0 - megabytes(useful) / megabytes(sent)),
            unit: "%",
            ceiling: self.goal(AGAIN_PERCENT_MAX),
            ratio: None,
            note: format!(
                "of all bytes sent but {HEADER_BYTES_MIN} of each datagram, those that are not the trees'; the path \
                 lost {:.1} % of datagrams and had no room for {:.1} %",
                percent_of(sum(|passed| passed.lost)),
                percent_of(sum(|passed| passed.dropped)),
            ),
        }
    }

    /// What part of all that has come was the least of a flow, and the most.
    fn shares(&self, got: &[u64]) -> [Row; 2] {
        let all = megabytes(got.iter().sum());
        let shares = got.iter().map(|&bytes| 100.0 * megabytes(bytes) / all);
        let mut shares: Vec<f64> = shares.collect();
        shares.sort_by(f64::total_cmp);
        let shown: Vec<String> = shares.iter().map(|share| format!("{share:.0}")).collect();
        let shown = shown.join(", ");
        let row = |which: &str, value, goal, bound: &str| Row {
            name: format!("four flows, {which} share, {:?}", self.congestion),
            value,
            unit: "%",
            ceiling: self.goal(goal),
            ratio: None,
            note: format!(
                "all: {shown} % of the chunks that came; each is to get {bound} {goal:.0}"
            ),
        };
        [
            row("smallest", shares[0], SHARE_PERCENT_MIN, "at least"),
            row("largest", shares[FLOWS - 1], SHARE_PERCENT_MAX, "at most"),
        ]
    }
}

async fn client(farm: &Path, address: SocketAddr) -> Result<CacheClient> {
    Ok(CacheClient::new(
        dial(farm, address, Datagrams::default()).await?,
        team(),
    ))
}

async fn restore(
    client: &CacheClient,
    tree: &TreeRef,
    into: &Path,
    progress: Progress,
) -> Result<()> {
    let options = Materialize {
        dialect: Dialect::Plain,
        owner: Owner::Own,
        default_modified: None,
        root: RootMode::Usual,
        progress,
    };
    materialize(client, tree, into, options).await?;
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody reads the sixteenth digit of a rate"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
