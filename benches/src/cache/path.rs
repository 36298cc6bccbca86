//! Bulk reads with datagrams of several sizes, sent together or alone, acknowledged more or less often, each beside
//! what is usual: over loopback and over links of Ethernet's sizes. Links need root: they are between network
//! namespaces, one for the cache and one for its client.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use testkit::network::Network;
use transport::Datagrams;

use super::{
    process::{self, CachePlan, Process, Role},
    reads::{Load, Took, run},
};
use crate::{
    clock::{median, spread},
    report::Row,
};

/// How large the chunks are, in bytes, and how many requests are under way.
const CHUNK_BYTES: u64 = 512 << 10;
const IN_FLIGHT: usize = 16;
/// How many bytes of chunks a store has, and how many one measurement reads.
const STORED_BYTES: u64 = 256 << 20;
const MOVED_BYTES: u64 = 512 << 20;
/// The stores of the cache that serves as is usual and of the one beside it: one store cannot be open twice.
const USUAL: &str = "usual";
const BESIDE: &str = "beside";
/// The hosts at the ends of a link.
const CACHE: &str = "cache";
const CLIENT: &str = "client";
/// How many datagrams the client takes without acknowledging them, and how many milliseconds it may wait for one
/// more: as RFC 9000 says, more seldom, and later.
const ACKNOWLEDGED: [(u32, u64); 3] = [(1, 25), (30, 5), (10, 25)];

/// Between a cache and its client.
struct PathPlan {
    name: &'static str,
    /// How large packets may be, in bytes, with the headers of IP; `None`: it is loopback.
    packet_bytes: Option<u32>,
    /// Which sizes of datagrams are measured, in bytes; the usual one is the measure of what two alike differ by.
    sizes: &'static [u16],
}

const PATHS: [PathPlan; 3] = [
    PathPlan {
        name: "loopback",
        packet_bytes: None,
        sizes: &[1_452, 4_000, 6_500, 16_000],
    },
    PathPlan {
        name: "link of 1500",
        packet_bytes: Some(1_500),
        sizes: &[1_200, 1_452, 6_500],
    },
    PathPlan {
        name: "link of 9000",
        packet_bytes: Some(9_000),
        sizes: &[1_452, 4_000, 6_500, 8_900],
    },
];

/// Measures what has `only` in its name.
///
/// # Errors
///
/// If a process does not do what it is there for.
pub(super) fn measure(pairs: u32, only: &str) -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let farm = directory.path();
    process::found(farm)?;
    for store in [USUAL, BESIDE] {
        fill(farm, store)?;
    }
    let mut rows = Vec::new();
    for path in PATHS {
        let manners = manners(path.sizes).into_iter();
        let named = manners.map(|datagrams| (name(path.name, &datagrams), datagrams));
        let named: Vec<_> = named.filter(|(name, _)| name.contains(only)).collect();
        if named.is_empty() {
            continue;
        }
        let Some(site) = Site::on(farm, path.packet_bytes) else {
            rows.push(not_measured(path.name));
            continue;
        };
        let (_process, usual) = site.serve(USUAL, Datagrams::default())?;
        for (name, datagrams) in named {
            rows.push(site.beside(usual, (name, datagrams), pairs)?);
        }
    }
    Ok(rows)
}

/// What is measured on a path: each size together and alone, but for what one system call does not take together,
/// and what is usual, acknowledged otherwise.
fn manners(sizes: &[u16]) -> Vec<Datagrams> {
    let usual = Datagrams::default();
    let cut = sizes.iter().flat_map(|&bytes_max| {
        [true, false].map(|go_together| Datagrams {
            bytes_max,
            go_together,
            ..usual
        })
    });
    let fitting = cut.filter(|datagrams| datagrams.bytes() == datagrams.bytes_max);
    let acknowledged = ACKNOWLEDGED.map(|(unacknowledged_max, millis)| Datagrams {
        unacknowledged_max,
        acknowledge_within: Duration::from_millis(millis),
        ..usual
    });
    fitting.chain(acknowledged).collect()
}

fn name(path: &str, datagrams: &Datagrams) -> String {
    let usual = Datagrams::up_to(datagrams.bytes_max);
    let together = match datagrams.go_together {
        true => "GSO",
        false => "no GSO",
    };
    let acknowledged = match (datagrams.unacknowledged_max, datagrams.acknowledge_within) {
        how if how == (usual.unacknowledged_max, usual.acknowledge_within) => String::new(),
        (count, within) => format!(", ack after {} or {within:?}", count + 1),
    };
    format!(
        "{path}, {} B, {together}{acknowledged}",
        datagrams.bytes_max
    )
}

fn not_measured(path: &str) -> Row {
    Row {
        name: format!("{path}: not measured"),
        value: 0.0,
        unit: "",
        ceiling: None,
        ratio: None,
        note: "network namespaces need root and iproute2".to_owned(),
    }
}

fn plan(farm: &Path, store: &str) -> CachePlan {
    CachePlan {
        farm: farm.to_owned(),
        directory: farm.join(store),
        budget: u64::MAX,
    }
}

fn digests(farm: &Path) -> PathBuf {
    farm.join("digests")
}

/// Fills a store; each gets the same chunks.
fn fill(farm: &Path, store: &str) -> Result<()> {
    let mut cache = Process::start(&Role::Cache(plan(farm, store)))?;
    run(Load::Fill {
        farm: farm.to_owned(),
        address: cache.hear()?,
        size: CHUNK_BYTES,
        bytes: STORED_BYTES,
        digests: digests(farm),
    })?;
    Ok(())
}

/// A path, and the farm whose parts are at its ends.
struct Site<'a> {
    farm: &'a Path,
    /// `None`: both ends are this machine's loopback.
    network: Option<Network>,
}

impl<'a> Site<'a> {
    /// `None`: this machine cannot have such a path.
    fn on(farm: &'a Path, packet_bytes: Option<u32>) -> Option<Self> {
        let Some(bytes) = packet_bytes else {
            return Some(Self {
                farm,
                network: None,
            });
        };
        let network = Network::of(&[CACHE, CLIENT])?;
        network.carry(bytes);
        Some(Self {
            farm,
            network: Some(network),
        })
    }

    /// A command that starts this program on a host.
    fn command(&self, host: &str) -> Result<Command> {
        let program = env::current_exe()?;
        Ok(match &self.network {
            Some(network) => network.command(host, &program),
            None => Command::new(program),
        })
    }

    fn serve(&self, store: &str, datagrams: Datagrams) -> Result<(Process, SocketAddr)> {
        let network = self.network.as_ref();
        let at = network.map_or(Ipv4Addr::LOCALHOST, |network| network.address(CACHE));
        let role = Role::PathCache {
            plan: plan(self.farm, store),
            at: IpAddr::V4(at),
            datagrams,
        };
        let mut process = Process::start_by(self.command(CACHE)?, &role)?;
        let address = process.hear()?;
        Ok((process, address))
    }

    fn read(&self, address: SocketAddr, datagrams: Datagrams) -> Result<Took> {
        let role = Role::Load(Load::Read {
            farm: self.farm.to_owned(),
            address,
            digests: digests(self.farm),
            in_flight: IN_FLIGHT,
            batch: 1,
            bytes: MOVED_BYTES,
            distinct: None,
            datagrams,
        });
        Process::start_by(self.command(CLIENT)?, &role)?.hear()
    }

    /// Reads with these datagrams and, in alternation, with what is usual.
    fn beside(
        &self,
        usual: SocketAddr,
        (name, datagrams): (String, Datagrams),
        pairs: u32,
    ) -> Result<Row> {
        let (_process, other) = self.serve(BESIDE, datagrams)?;
        let (mut ours, mut theirs) = (vec![], vec![]);
        let mut datagram_bytes = 0;
        for _ in 0..pairs {
            let took = self.read(other, datagrams)?;
            datagram_bytes = took.datagram_bytes.unwrap_or_default();
            ours.push(took.megabytes_per_second());
            let took = self.read(usual, Datagrams::default())?;
            theirs.push(took.megabytes_per_second());
        }
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Ok(Row {
            name,
            value: median(ours),
            unit: "MB/s",
            ceiling: None,
            ratio: Some(median(ratios)),
            note: format!(
                "x the usual ({:.0} MB/s, spread {:.2}), pairs {least:.2} to {most:.2}; datagrams had \
                 {datagram_bytes} B",
                median(theirs.clone()),
                spread(&theirs)
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_measured_both_ways_but_for_what_one_system_call_does_not_take() {
        let names: Vec<String> = manners(&[6_500, 8_900])
            .iter()
            .map(|datagrams| name("link", datagrams))
            .collect();
        let expected = [
            "link, 6500 B, GSO",
            "link, 6500 B, no GSO",
            "link, 8900 B, no GSO",
            "link, 6500 B, GSO, ack after 2 or 25ms",
            "link, 6500 B, GSO, ack after 31 or 5ms",
            "link, 6500 B, GSO, ack after 11 or 25ms",
        ];
        assert_eq!(names, expected);
    }
}
