//! Keeps the connections to the cache: for each team of whose builds there are attempts, connections of its own.
//!
//! QUIC bounds what a connection has on its way to a reader that is busy, whoever sends it. Teams that shared one
//! would fill it with parts of their chunks, of which none is whole, and one that the cache lets wait would hold up
//! the others.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cache::client;
use futures_util::future::select_all;
use protocol::name::Team;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tracing::{info, warn};
use transport::{Client, Connection, back_off};

use crate::report::Chain;

/// How long the connections of a team stay that has no attempts any more: the next phase of a build comes within
/// seconds, and needs no handshake then. No more teams have connections than had attempts in this time; each that
/// connects has the fewer, the more there are.
const LINGER: Duration = Duration::from_secs(30);

/// Connections, told from those before them.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) connections: Arc<[Connection]>,
}

/// A team's connections, if there are any at the moment.
pub(super) type Current = watch::Sender<Option<Numbered>>;

/// The ways to the cache, for whoever wants one.
#[derive(Clone, Debug)]
pub(crate) struct CacheLinks {
    links: Arc<Links>,
}

#[derive(Debug, Default)]
struct Links {
    teams: Mutex<BTreeMap<Team, Link>>,
    /// There is one that nobody keeps.
    begun: Notify,
}

#[derive(Debug)]
struct Link {
    current: Current,
    is_kept: bool,
    /// How often somebody has asked for it.
    asked: u64,
}

/// What keeps the connections to the cache.
#[derive(Debug)]
pub(crate) struct CacheKeeper {
    links: Arc<Links>,
    way: Way,
}

/// How to get there.
#[derive(Clone, Debug)]
struct Way {
    /// Where the cache is; `None`: nobody has said yet.
    address: watch::Receiver<Option<SocketAddr>>,
    client: Client,
    /// Differs between workers, and between the teams of a worker.
    seed: u64,
    linger: Duration,
}

impl CacheKeeper {
    /// A keeper, and the links that it keeps to wherever `address` says that the cache is. `seed` differs between
    /// workers.
    pub(crate) fn new(
        address: watch::Receiver<Option<SocketAddr>>,
        client: Client,
        seed: u64,
    ) -> (Self, CacheLinks) {
        let links = Arc::<Links>::default();
        let way = Way {
            address,
            client,
            seed,
            linger: LINGER,
        };
        let keeper = Self {
            links: Arc::clone(&links),
            way,
        };
        (keeper, CacheLinks { links })
    }

    /// Keeps connections for every team that has attempts.
    pub(crate) async fn keep(mut self) {
        let mut teams = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = teams.join_next() => ended.expect("links are kept without a panic"),
                () = self.links.begun.notified() => {
                    for (team, link) in self.links.lock().iter_mut().filter(|(_, link)| !link.is_kept) {
                        link.is_kept = true;
                        self.way.seed = self.way.seed.wrapping_add(1);
                        let (way, links) = (self.way.clone(), Arc::clone(&self.links));
                        teams.spawn(keep_team(way, links, team.clone(), link.current.clone()));
                    }
                }
            }
        }
    }
}

impl CacheLinks {
    /// What there is of connections for `team`, now and later. They stay while this is there.
    pub(super) fn of(&self, team: &Team) -> watch::Receiver<Option<Numbered>> {
        let mut teams = self.links.lock();
        if let Some(link) = teams.get_mut(team) {
            link.asked += 1;
            return link.current.subscribe();
        }
        let current = Current::new(None);
        let receiver = current.subscribe();
        let link = Link {
            current,
            is_kept: false,
            asked: 1,
        };
        teams.insert(team.clone(), link);
        self.links.begun.notify_one();
        receiver
    }
}

impl Links {
    fn asked(&self, team: &Team) -> Option<u64> {
        self.lock().get(team).map(|link| link.asked)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Team, Link>> {
        // Every change is one step.
        self.teams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the connections of `team` until it has had no attempts for a while.
async fn keep_team(way: Way, links: Arc<Links>, team: Team, current: Current) {
    let unused = async {
        loop {
            current.closed().await;
            let asked = links.asked(&team);
            tokio::time::sleep(way.linger).await;
            let mut teams = links.lock();
            // Whoever wants them now comes before, or gets new ones.
            if current.is_closed() && teams.get(&team).map(|link| link.asked) == asked {
                teams.remove(&team);
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = unused => {}
        () = connect(way.clone(), &links, (&team, &current)) => {
            // Who waits for connections hears that none will come.
            links.lock().remove(&team);
        }
    }
    if let Some(last) = current.send_replace(None) {
        close(&last.connections, "no more builds of the team");
    }
}

/// Connects to wherever the cache is, again and again, until nobody says where that is any more.
async fn connect(mut way: Way, links: &Links, (team, current): (&Team, &Current)) {
    let mut failures = 0;
    let mut number = 0;
    loop {
        let address = match way.address.wait_for(Option::is_some).await {
            Ok(address) => *address,
            Err(_gone) => return,
        };
        let Some(address) = address else { continue };
        tokio::time::sleep(back_off(failures, way.seed)).await;
        let teams = links.lock().len().max(1);
        let connections = match client::connect(&way.client, address, teams).await {
            Ok(connections) => connections,
            Err(error) => {
                failures += 1;
                warn!(cache = %address, %team, failures, error = %Chain(&error), "no link to the cache");
                continue;
            }
        };
        info!(cache = %address, %team, "linked to the cache");
        failures = 1;
        number += 1;
        current.send_replace(Some(Numbered {
            number,
            connections: Arc::clone(&connections),
        }));
        let moved = way.address.wait_for(|now| *now != Some(address));
        tokio::select! {
            biased;
            reason = any_closed(&connections) => {
                warn!(cache = %address, %team, reason, "link to the cache lost");
                close(&connections, "another connection was lost");
            }
            _ = moved => close(&connections, "the cache is elsewhere"),
        }
        current.send_replace(None);
    }
}

/// Waits until one of them is over, and says why, for people.
async fn any_closed(connections: &[Connection]) -> String {
    let closed = connections.iter().map(|one| Box::pin(one.closed()));
    select_all(closed).await.0
}

fn close(connections: &[Connection], reason: &str) {
    for connection in connections {
        connection.close(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use protocol::{
        access::{Identity, Role},
        time::WallTime,
    };
    use tokio::sync::mpsc;
    use transport::{Authority, Credentials, GrantSigner, Server, ServerLimits};

    use super::*;

    /// Longer than anybody runs these tests: certificates count from 1970, so that no clock is needed.
    const CENTURIES: Duration = Duration::from_secs(200 * 365 * 24 * 60 * 60);

    /// How many connections a test may make.
    const ARRIVED_MAX: usize = 64;

    /// A server that lets in whoever comes, and what keeps links to it.
    struct Site {
        links: CacheLinks,
        arrived: mpsc::Receiver<Connection>,
        tasks: JoinSet<()>,
        _address: watch::Sender<Option<SocketAddr>>,
    }

    impl Site {
        fn start(linger: Duration) -> Self {
            let (authority, signer) = (Authority::create().unwrap(), GrantSigner::create());
            let member = |role: Role| {
                let identity = Identity {
                    team: "farm".parse().unwrap(),
                    role,
                    name: role.to_string(),
                };
                let (key, from) = (signer.public_key(), WallTime(0));
                Credentials::self_issued(&authority, identity, &key, from, CENTURIES).unwrap()
            };
            let listen = (Ipv4Addr::LOCALHOST, 0).into();
            let server = Server::bind(listen, &member(Role::Cache), ServerLimits::default());
            let server = server.unwrap();
            let address = watch::Sender::new(Some(server.local_addr()));
            let client = Client::new(&member(Role::Worker)).unwrap();
            let (mut keeper, links) = CacheKeeper::new(address.subscribe(), client, 1);
            keeper.way.linger = linger;
            let (welcomed, arrived) = mpsc::channel(ARRIVED_MAX);
            let mut tasks = JoinSet::new();
            tasks.spawn(keeper.keep());
            tasks.spawn(async move {
                while let Some(arriving) = server.accept().await {
                    let greeting = arriving.greet().await.unwrap();
                    let connection = greeting.welcome(None).await.unwrap();
                    welcomed.try_send(connection).unwrap();
                }
            });
            Self {
                links,
                arrived,
                tasks,
                _address: address,
            }
        }

        /// A team's way to the cache, and the connections that it has, once there are any.
        async fn linked(&self, team: &str) -> (watch::Receiver<Option<Numbered>>, Numbered) {
            let mut current = self.links.of(&team.parse().unwrap());
            let there = current.wait_for(Option::is_some).await.unwrap().clone();
            (current, there.unwrap())
        }
    }

    fn are_the_same(one: &Numbered, other: &Numbered) -> bool {
        Arc::ptr_eq(&one.connections, &other.connections)
    }

    #[tokio::test]
    async fn a_team_has_connections_of_its_own_which_its_attempts_share() {
        let mut site = Site::start(CENTURIES);
        let (first, red) = site.linked("red").await;
        let (second, blue) = site.linked("blue").await;
        let (third, again) = site.linked("red").await;
        assert!(are_the_same(&red, &again) && !are_the_same(&red, &blue));
        for _ in 0..red.connections.len() + blue.connections.len() {
            site.arrived.recv().await.unwrap();
        }
        drop((first, second, third));
        let (_, next) = site.linked("blue").await;
        assert!(are_the_same(&blue, &next), "they stay for the next attempt");
        site.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_team_without_attempts_loses_its_connections_after_a_while_and_gets_new_ones() {
        let mut site = Site::start(Duration::ZERO);
        let (current, red) = site.linked("red").await;
        let first = site.arrived.recv().await.unwrap();
        drop(current);
        let reason = first.closed().await;
        assert!(reason.contains("no more builds of the team"), "{reason}");
        let (_current, again) = site.linked("red").await;
        assert!(!are_the_same(&red, &again));
        site.tasks.shutdown().await;
    }
}
