//! The coordinator's own connection to the cache: kept up, and made anew when the cache moves or comes
//! back.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use cache::client::CacheClient;
use protocol::{
    access::{Revocation, Role},
    name::Team,
    report::Chain,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::{BACK_OFF_MAX, Client, Connection, back_off};

/// How long a request waits for the cache to come back before it is refused: a little longer than the
/// longest pause between two tries, so that a cache that is there again is always found.
const PATIENCE: Duration = BACK_OFF_MAX.saturating_add(Duration::from_secs(2));

/// The connection to the cache, as long as there is one.
#[derive(Clone, Debug)]
pub(crate) struct CacheLink {
    connection: watch::Receiver<Option<Connection>>,
    team: Team,
}

/// There is no connection to the cache, and none came up in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the coordinator has no connection to the cache; is `grange cache serve` running?")]
pub(crate) struct NoCache;

impl CacheLink {
    /// A client of the cache, waiting a little for the connection if it is not there.
    ///
    /// # Errors
    ///
    /// If the cache does not come back within that time.
    pub(crate) async fn client(&self) -> Result<CacheClient, NoCache> {
        let mut connection = self.connection.clone();
        let there = timeout(PATIENCE, connection.wait_for(Option::is_some)).await;
        let found = match there {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        };
        let connection = found.ok_or(NoCache)?;
        Ok(CacheClient::new(connection, self.team.clone()))
    }

    /// Whether there is a connection, now and later.
    pub(crate) fn follow(&self) -> watch::Receiver<Option<Connection>> {
        self.connection.clone()
    }
}

/// Where [`keep_up`] says whether there is a connection.
pub(crate) type LinkSender = watch::Sender<Option<Connection>>;

/// A link, and what its task needs. `team` is whose certificate the coordinator has.
pub(crate) fn link(team: Team) -> (CacheLink, LinkSender) {
    let sender = watch::Sender::new(None);
    let connection = sender.subscribe();
    (CacheLink { connection, team }, sender)
}

/// What the cache is told whenever it changes, and whenever a connection comes up.
type Revoked = watch::Receiver<Arc<Vec<Revocation>>>;

/// Keeps the connection up until stopped. `address` says where the cache is; `revoked` is what it is told.
pub(crate) async fn keep_up(
    client: Client,
    (mut address, mut revoked): (watch::Receiver<Option<SocketAddr>>, Revoked),
    (team, link): (Team, LinkSender),
    stop: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            connected = connect(&client, &mut address, failures) => connected,
        };
        let connection = match connected {
            Tried::Connected(connection) => connection,
            Tried::Failed => {
                failures = failures.saturating_add(1);
                continue;
            }
            Tried::Moved => {
                failures = 0;
                continue;
            }
        };
        failures = 1;
        revoked.mark_changed();
        link.send_replace(Some(connection.clone()));
        let cache = CacheClient::new(connection.clone(), team.clone());
        let why = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            why = connection.closed() => why,
            _ = address.changed() => "the cache has moved".to_owned(),
            why = tell_revoked(&cache, &mut revoked) => why,
        };
        link.send_replace(None);
        connection.close("the coordinator connects anew");
        warn!(reason = why, "connection to the cache is over");
    }
}

/// Tells the cache what is revoked, now and whenever it changes; ends if the cache does not listen, with
/// the reason.
async fn tell_revoked(cache: &CacheClient, revoked: &mut Revoked) -> String {
    loop {
        if revoked.changed().await.is_err() {
            // Members live as long as the coordinator.
            return pending().await;
        }
        let all = Arc::clone(&revoked.borrow_and_update());
        match timeout(PATIENCE, cache.revoked(&all)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Chain(&error).to_string(),
            Err(_elapsed) => return "the cache does not answer".to_owned(),
        }
    }
}

/// What came of trying to connect.
enum Tried {
    Connected(Connection),
    Failed,
    /// The cache has moved meanwhile: the new address is worth a try at once.
    Moved,
}

/// Waits as long as `failures` tries demand, and for an address, and tries once.
async fn connect(
    client: &Client,
    address: &mut watch::Receiver<Option<SocketAddr>>,
    failures: u32,
) -> Tried {
    // One coordinator per farm: no other waits in step with it.
    let pause = sleep(back_off(failures, 0));
    tokio::select! {
        () = pause => {}
        _ = address.changed(), if 0 < failures => return Tried::Moved,
    }
    // The sender lives as long as the coordinator.
    let known = address.wait_for(Option::is_some).await.ok();
    let Some(found) = known.and_then(|known| *known) else {
        return Tried::Failed;
    };
    let connected = tokio::select! {
        biased;
        // A cache that has moved does not answer at its old address; no need to wait until that is certain.
        _ = address.changed() => return Tried::Moved,
        connected = client.connect(found, Role::Cache) => connected,
    };
    match connected {
        Ok(connection) => {
            info!(address = %found, "connected to the cache");
            Tried::Connected(connection)
        }
        Err(error) => {
            warn!(address = %found, error = %Chain(&error), "failed to connect to the cache");
            Tried::Failed
        }
    }
}
