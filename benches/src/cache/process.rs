//! The processes of a benchmark: this program again, in another role. A role comes as one argument, in
//! JSON, and says what it has to say as one line of JSON.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use ::cache::{allocator, server};
use anyhow::{Context as _, Result, bail};
use protocol::{
    access::{Identity, Role as Member},
    name::Team,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use transport::{Authority, Client, Congestion, Connection, Credentials, Datagrams, GrantSigner};

use super::{eviction, reads};
use crate::{clock::wall, report::say};

/// The team of all clients.
const TEAM: &str = "bench";
/// How long holds last, unless a benchmark says otherwise: longer than any part takes, since nothing else keeps
/// the chunks that are read.
const HOLD: Duration = Duration::from_secs(2 * 3600);
/// How long the certificates of a benchmark last.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a process of a benchmark does.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Role {
    /// Serves a cache; says its address.
    Cache(CachePlan),
    /// Serves a cache whose holds are short; says its address.
    ShortHolds { plan: CachePlan, hold_millis: u64 },
    /// The same as `Cache`, which takes and gives so many bytes of chunks a second and no more.
    SlowCache {
        plan: CachePlan,
        bytes_per_second: u64,
    },
    /// The same as `Cache`, with a congestion controller.
    FarCache {
        plan: CachePlan,
        congestion: Congestion,
    },
    /// The same as `Cache`, at an address, with other datagrams.
    PathCache {
        plan: CachePlan,
        at: IpAddr,
        datagrams: Datagrams,
    },
    /// The same as `Pump`, with a congestion controller.
    FarPump {
        farm: PathBuf,
        congestion: Congestion,
    },
    /// A client that puts and looks up entries, or holds some; says what came of it.
    Entries(eviction::Load),
    /// Serves bytes from memory; says its address.
    Pump {
        /// The farm's directory.
        farm: PathBuf,
    },
    /// A client that reads or writes; says what came of it.
    Load(reads::Load),
}

/// What cache to serve.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CachePlan {
    /// The farm's directory, which has the credentials.
    pub(crate) farm: PathBuf,
    /// Where the store is.
    pub(crate) directory: PathBuf,
    /// How many bytes it may take.
    pub(crate) budget: u64,
}

/// Plays a role until it is over, or until the process is killed.
///
/// # Errors
///
/// If it cannot be played.
pub(crate) fn play(role: &str) -> Result<()> {
    allocator::tune();
    match serde_json::from_str(role)? {
        Role::Cache(plan) => runtime()?.block_on(serve_cache(plan, Manner::default())),
        Role::FarCache { plan, congestion } => {
            let manner = Manner {
                congestion,
                ..Manner::default()
            };
            runtime()?.block_on(serve_cache(plan, manner))
        }
        Role::PathCache {
            plan,
            at,
            datagrams,
        } => {
            let manner = Manner {
                at,
                datagrams,
                ..Manner::default()
            };
            runtime()?.block_on(serve_cache(plan, manner))
        }
        Role::FarPump { farm, congestion } => {
            runtime()?.block_on(reads::serve_pump(&farm, congestion))
        }
        Role::ShortHolds { plan, hold_millis } => {
            let manner = Manner {
                hold: Duration::from_millis(hold_millis),
                ..Manner::default()
            };
            runtime()?.block_on(serve_cache(plan, manner))
        }
        Role::SlowCache {
            plan,
            bytes_per_second,
        } => {
            let manner = Manner {
                limits: server::Limits {
                    team_rate: Some(bytes_per_second),
                    ..server::Limits::default()
                },
                ..Manner::default()
            };
            runtime()?.block_on(serve_cache(plan, manner))
        }
        Role::Entries(load) => runtime()?.block_on(eviction::play(load)),
        Role::Pump { farm } => runtime()?.block_on(reads::serve_pump(&farm, Congestion::default())),
        Role::Load(load) => say(&runtime()?.block_on(reads::load(load))?),
    }
}

/// The runtime that `grange` has, too.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// How a cache serves.
struct Manner {
    /// Where it listens.
    at: IpAddr,
    hold: Duration,
    limits: server::Limits,
    congestion: Congestion,
    datagrams: Datagrams,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            at: Ipv4Addr::LOCALHOST.into(),
            hold: HOLD,
            limits: server::Limits::default(),
            congestion: Congestion::default(),
            datagrams: Datagrams::default(),
        }
    }
}

async fn serve_cache(plan: CachePlan, manner: Manner) -> Result<()> {
    let options = server::Options {
        listen: (manner.at, 0).into(),
        directory: plan.directory,
        budget: plan.budget,
        free_low_water: 1 << 30,
        log_directory: None,
        hold: manner.hold,
        metrics_listen: None,
        salvage: false,
        limits: manner.limits,
        congestion: manner.congestion,
        datagrams: manner.datagrams,
        cold: None,
    };
    let (ready, listens) = oneshot::channel();
    let mut running = JoinSet::new();
    let credentials = credentials(&plan.farm, Member::Cache)?;
    running.spawn(server::run(
        options,
        credentials,
        ready,
        CancellationToken::new(),
    ));
    if let Ok(address) = listens.await {
        say(&address)?;
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Makes the authority and the credentials of a farm in `directory`.
///
/// # Errors
///
/// If they cannot be made or kept.
pub(crate) fn found(directory: &Path) -> Result<()> {
    let authority = Authority::create()?;
    let grant_key = GrantSigner::create().public_key();
    for role in [Member::Cache, Member::Admin, Member::Coordinator] {
        let identity = Identity {
            team: team(),
            role,
            name: role.to_string(),
        };
        let made = Credentials::self_issued(&authority, identity, &grant_key, wall(), DAY)?;
        let place = directory.join(role.to_string());
        fs::create_dir_all(&place)?;
        made.save(&place)?;
    }
    Ok(())
}

pub(crate) fn credentials(farm: &Path, role: Member) -> Result<Credentials> {
    let found = Credentials::load(&farm.join(role.to_string()))?;
    found.with_context(|| format!("the farm has no {role}"))
}

pub(crate) fn team() -> Team {
    TEAM.parse().expect("it is a name")
}

/// Connects to a service of the farm, over datagrams like these.
///
/// # Errors
///
/// If it does not answer.
pub(crate) async fn dial(
    farm: &Path,
    address: SocketAddr,
    datagrams: Datagrams,
) -> Result<Connection> {
    let client = Client::with_datagrams(&credentials(farm, Member::Admin)?, datagrams)?;
    Ok(client.connect(address, Member::Cache).await?)
}

/// A process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program in a role.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub(crate) fn start(role: &Role) -> Result<Self> {
        Self::start_by(Command::new(env::current_exe()?), role)
    }

    /// Starts this program in a role, by a command that runs it, which may do so on another host.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub(crate) fn start_by(mut command: Command, role: &Role) -> Result<Self> {
        command.arg("role").arg(serde_json::to_string(role)?);
        Self::spawn(command)
    }

    /// Starts another program that speaks in lines.
    ///
    /// # Errors
    ///
    /// If there is no such program.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("the output is piped")?;
        Ok(Self {
            child,
            output: BufReader::new(output),
        })
    }

    /// What it says next.
    ///
    /// # Errors
    ///
    /// If it ends without a word.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!(
                "a process of the benchmark ended without a word: {}",
                self.child.wait()?
            );
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// The most memory that it has had, in bytes.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub(crate) fn memory_peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.context("the kernel says no peak")?;
        Ok(peak.trim_end_matches("kB").trim().parse::<u64>()? << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
