//! Arrivals: who has connected, what for, and whether it may.

use std::{sync::Arc, time::Duration};

use protocol::{
    access::{Identity, Role},
    message::{
        Refusal,
        handshake::{IssuedCertificate, Purpose},
    },
    name::{NAME_BYTES_MAX, WorkerName},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, info_span, warn};
use transport::{Arriving, Connection, Greeting, JoinToken, Server};

use super::{client, refusal, worker};
use crate::{clock, farm::Farm, report::Chain};

/// How long the certificate of a machine lives. Machines renew theirs at half of it without being asked,
/// so it only has to outlast a weekend of being switched off.
const MACHINE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the certificate of a person lives: longer than a holiday.
const PERSON_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a newcomer that has its certificate may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// Takes connections until stopped, and waits for their sessions to end.
pub(crate) async fn run(server: Arc<Server>, farm: Arc<Farm>, stop: CancellationToken) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => note(ended),
            arriving = server.accept() => match arriving {
                Some(arriving) => {
                    let remote = arriving.remote();
                    let session = arrive(arriving, Arc::clone(&farm), stop.clone());
                    sessions.spawn(session.instrument(info_span!("connection", %remote)));
                }
                None => break,
            },
        }
    }
    while let Some(ended) = sessions.join_next().await {
        note(ended);
    }
}

/// A session that panics ends itself and nothing else.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %Chain(&error), "session failed");
        metrics::counter!("grange_sessions_failed_total").increment(1);
    }
}

async fn arrive(arriving: Arriving, farm: Arc<Farm>, stop: CancellationToken) {
    let greeting = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        greeting = arriving.greet() => greeting,
    };
    let greeting = match greeting {
        Ok(greeting) => greeting,
        Err(error) => {
            // Strangers knock at every open port: nobody has to act.
            debug!(error = %Chain(&error), "connection came to nothing");
            metrics::counter!("grange_handshakes_failed_total").increment(1);
            return;
        }
    };
    match admit(&greeting, &farm) {
        Ok(None) => {
            let Some(identity) = greeting.identity.clone() else {
                return greeting.refuse(refusal::denied(STRANGER)).await;
            };
            match greeting.welcome(None).await {
                Ok(connection) => converse(connection, identity, farm, stop).await,
                Err(error) => debug!(error = %Chain(&error), "client is gone"),
            }
        }
        Ok(Some(issued)) => {
            info!(identity = %issued.identity, "certificate issued");
            metrics::counter!("grange_certificates_issued_total").increment(1);
            match greeting.welcome(Some(issued)).await {
                // Closed from here, the answer could get lost.
                Ok(connection) => drop(timeout(LEAVE_LIMIT, connection.closed()).await),
                Err(error) => debug!(error = %Chain(&error), "client is gone"),
            }
        }
        Err(refusal) => {
            warn!(reason = refusal.message, "client refused");
            metrics::counter!("grange_clients_refused_total").increment(1);
            greeting.refuse(refusal).await;
        }
    }
}

const STRANGER: &str = "this connection has no certificate of the farm; join it with a token, which \
                        `grange token create` makes";

/// Whether a client may do what it came for; with the certificate that it is to get.
fn admit(greeting: &Greeting, farm: &Farm) -> Result<Option<IssuedCertificate>, Refusal> {
    match (&greeting.purpose, &greeting.identity) {
        (Purpose::Requests, Some(identity)) => match identity.role {
            Role::Coordinator => Err(refusal::denied(format!(
                "{identity} is a coordinator itself, and has nothing to ask of another"
            ))),
            _ => Ok(None),
        },
        (Purpose::Enrol { .. }, Some(identity)) => Err(refusal::precondition(format!(
            "{identity} has joined already; connect without a certificate to join as somebody else"
        ))),
        (
            Purpose::Enrol {
                token,
                request,
                name,
            },
            None,
        ) => {
            let hash = JoinToken::hash_of(token);
            let bought = farm.members.redeem(hash, clock::wall());
            let (team, role) = bought.map_err(|error| refusal::denied(error.to_string()))?;
            let identity = Identity {
                team,
                role,
                name: name.clone(),
            };
            check_name(&identity)?;
            issue(farm, request, identity).map(Some)
        }
        (Purpose::Renew { request }, Some(identity)) => {
            issue(farm, request, identity.clone()).map(Some)
        }
        (Purpose::Requests | Purpose::Renew { .. }, None) => Err(refusal::denied(STRANGER)),
    }
}

/// Names of workers are names with rules; those of others are any printable text of the same length.
fn check_name(identity: &Identity) -> Result<(), Refusal> {
    let name = &identity.name;
    if identity.role == Role::Worker {
        let parsed = name.parse::<WorkerName>();
        return match parsed {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal::invalid(error.to_string())),
        };
    }
    let is_printable = name.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    if name.is_empty() || NAME_BYTES_MAX < name.len() || !is_printable {
        return Err(refusal::invalid(format!(
            "a member's name has 1 to {NAME_BYTES_MAX} printable ASCII characters, not {name:?}"
        )));
    }
    Ok(())
}

fn issue(farm: &Farm, request: &[u8], identity: Identity) -> Result<IssuedCertificate, Refusal> {
    let lifetime = if identity.role.is_client() {
        PERSON_LIFETIME
    } else {
        MACHINE_LIFETIME
    };
    let certificate = farm
        .authority
        .issue(request, &identity, clock::wall(), lifetime)
        .map_err(|error| refusal::invalid(Chain(&error).to_string()))?;
    Ok(IssuedCertificate {
        identity,
        certificate,
        authority: farm.authority.certificate().to_vec(),
        grant_key: farm.signer.public_key(),
    })
}

/// Talks with a member until it leaves, its certificate ends, or the coordinator stops.
async fn converse(
    connection: Connection,
    identity: Identity,
    farm: Arc<Farm>,
    stop: CancellationToken,
) {
    debug!(%identity, "member connected");
    let life = connection.certificate().map(|known| known.valid_until);
    let life = life.map(|end| end.since(clock::wall())).unwrap_or_default();
    let session = async {
        if identity.role == Role::Worker {
            worker::run(&connection, &identity, &farm).await
        } else {
            client::run(&connection, &identity, &farm).await
        }
    };
    let why = tokio::select! {
        biased;
        () = stop.cancelled() => "the coordinator stops",
        why = session => why,
        () = sleep(life) => "the certificate has expired; connect again with a renewed one",
    };
    connection.close(why);
    debug!(%identity, reason = why, "member disconnected");
}
