//! Arrivals: who has connected, what for, and whether it may.

use std::{sync::Arc, time::Duration};

use protocol::{
    access::{Identity, Role},
    message::{
        Refusal,
        handshake::{IssuedCertificate, Purpose},
    },
    name::{NAME_BYTES_MAX, WorkerName},
    report::Chain,
    time::WallTime,
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, info_span, warn};
use transport::{Arriving, Certificate, Connection, Guests, JoinToken, Server};

use super::{client, refusal, worker};
use crate::{clock, farm::Farm, members::RegisterError};

/// How long the certificate of a machine lives. Machines renew theirs at half of it without being asked,
/// so it only has to outlast a weekend of being switched off.
const MACHINE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the certificate of a person lives: longer than a holiday.
const PERSON_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many connections one member may have at once. A person has some commands that follow builds, a
/// runner of builds a connection for each that it follows.
const CONNECTIONS_MAX: usize = 64;
/// How long a newcomer that has its certificate may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// Takes connections until stopped, and waits for their sessions to end.
pub(crate) async fn run(server: Arc<Server>, farm: Arc<Farm>, stop: CancellationToken) {
    let mut sessions = JoinSet::new();
    let guests = Guests::new(CONNECTIONS_MAX);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => note(ended),
            arriving = server.accept() => match arriving {
                Some(arriving) => {
                    let remote = arriving.remote();
                    let session = arrive(arriving, Arc::clone(&farm), guests.clone(), stop.clone());
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

async fn arrive(arriving: Arriving, farm: Arc<Farm>, guests: Guests, stop: CancellationToken) {
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
    let asked = Asked {
        purpose: greeting.purpose.clone(),
        certificate: greeting.certificate.clone(),
        farm: Arc::clone(&farm),
    };
    // It may wait for the disk.
    let admitted = spawn_blocking(move || asked.admit()).await;
    match admitted.expect("admitting does not panic") {
        Ok(Admitted::Member(certificate)) => {
            let place = match guests.admit(&certificate.identity) {
                Ok(place) => place,
                Err(error) => {
                    warn!(reason = %error, "client refused");
                    metrics::counter!("grange_clients_refused_total").increment(1);
                    return greeting.refuse(refusal::exhausted(error.to_string())).await;
                }
            };
            let greeting = greeting.with_streams(streams(certificate.identity.role));
            match greeting.welcome(None).await {
                Ok(connection) => converse(connection, certificate, farm, stop).await,
                Err(error) => debug!(error = %Chain(&error), "client is gone"),
            }
            drop(place);
        }
        Ok(Admitted::Issued(issued)) => {
            info!(identity = %issued.identity, "certificate issued");
            metrics::counter!("grange_certificates_issued_total").increment(1);
            match greeting.welcome(Some(*issued)).await {
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

const EXPIRED: &str = "the certificate has expired; join again with a new token";

/// What a client came with, and for.
struct Asked {
    purpose: Purpose,
    certificate: Option<Certificate>,
    farm: Arc<Farm>,
}

/// What a client gets.
enum Admitted {
    /// A conversation, as who its certificate says it is.
    Member(Certificate),
    /// A certificate, and nothing else.
    Issued(Box<IssuedCertificate>),
}

impl Asked {
    /// Whether a client may do what it came for. May wait for the disk.
    fn admit(self) -> Result<Admitted, Refusal> {
        let (farm, now) = (&self.farm, clock::wall());
        // TLS looks at dates only when a session is new.
        let end = self.certificate.as_ref().map(|held| held.valid_until);
        if end.is_some_and(|end| end <= now) {
            return Err(refusal::denied(EXPIRED));
        }
        match (self.purpose, self.certificate) {
            (Purpose::Requests, Some(certificate)) => {
                let identity = &certificate.identity;
                if identity.role == Role::Coordinator {
                    return Err(refusal::denied(format!(
                        "{identity} is a coordinator itself, and has nothing to ask of another"
                    )));
                }
                let times = (certificate.valid_until, now);
                match farm.members.came(identity, certificate.issued(), times) {
                    Ok(()) => {}
                    // Who has a certificate may come on a full disk, too.
                    Err(error @ RegisterError::Write { .. }) => {
                        warn!(%identity, error = %Chain(&error), "member is not noted");
                    }
                    Err(error) => return Err(refusal::denied(error.to_string())),
                }
                Ok(Admitted::Member(certificate))
            }
            (Purpose::Enrol { .. }, Some(certificate)) => Err(refusal::precondition(format!(
                "{} has joined already; connect without a certificate to join as somebody else",
                certificate.identity
            ))),
            (
                Purpose::Enrol {
                    token,
                    request,
                    name,
                },
                None,
            ) => {
                let hash = JoinToken::hash_of(&token);
                let bought = farm.members.redeem(hash, now);
                let (team, role) = bought.map_err(|error| refusal::denied(error.to_string()))?;
                let identity = Identity { team, role, name };
                check_name(&identity)?;
                farm.authority
                    .check_request(&request)
                    .map_err(|error| refusal::invalid(Chain(&error).to_string()))?;
                let joined = farm.members.join(&identity, lifetime(role), now);
                let issued = joined.map_err(|error| register_refusal(&error))?;
                issue(farm, &request, identity, issued)
            }
            (Purpose::Renew { request }, Some(certificate)) => {
                let held = certificate.issued();
                let identity = certificate.identity;
                let times = (lifetime(identity.role), now);
                let renewed = farm.members.renew(&identity, held, times);
                let issued = renewed.map_err(|error| register_refusal(&error))?;
                issue(farm, &request, identity, issued)
            }
            (Purpose::Requests | Purpose::Renew { .. }, None) => Err(refusal::denied(STRANGER)),
        }
    }
}

fn register_refusal(error: &RegisterError) -> Refusal {
    match error {
        RegisterError::Taken { .. } => refusal::precondition(error.to_string()),
        RegisterError::Revoked { .. } => refusal::denied(error.to_string()),
        RegisterError::TooMany => refusal::exhausted(error.to_string()),
        RegisterError::Write { .. } => refusal::internal("remember the member", error),
    }
}

/// How many streams a member may have open at once.
const fn streams(role: Role) -> u32 {
    match role {
        Role::Worker => worker::STREAMS_MAX,
        _ => client::REQUESTS_MAX,
    }
}

/// How long a certificate lives.
const fn lifetime(role: Role) -> Duration {
    if role.is_client() {
        PERSON_LIFETIME
    } else {
        MACHINE_LIFETIME
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

fn issue(
    farm: &Farm,
    request: &[u8],
    identity: Identity,
    issued: WallTime,
) -> Result<Admitted, Refusal> {
    let certificate = farm
        .authority
        .issue(request, &identity, issued, lifetime(identity.role))
        .map_err(|error| refusal::invalid(Chain(&error).to_string()))?;
    Ok(Admitted::Issued(Box::new(IssuedCertificate {
        identity,
        certificate,
        authority: farm.authority.certificate().to_vec(),
        grant_key: farm.signer.public_key(),
    })))
}

/// Talks with a member until it leaves, its certificate ends or is revoked, or the coordinator stops.
async fn converse(
    connection: Connection,
    certificate: Certificate,
    farm: Arc<Farm>,
    stop: CancellationToken,
) {
    let (identity, issued) = (&certificate.identity, certificate.issued());
    debug!(%identity, "member connected");
    let mut revoked = farm.members.revoked();
    let session = async {
        if identity.role == Role::Worker {
            worker::run(&connection, identity, &farm).await
        } else {
            client::run(&connection, identity, &farm).await
        }
    };
    let why = tokio::select! {
        biased;
        () = stop.cancelled() => "the coordinator stops",
        _ = revoked.wait_for(|all| all.iter().any(|one| one.covers(identity, issued))) => {
            "the certificate was revoked; join again with a new token"
        }
        why = session => why,
        () = clock::until(certificate.valid_until) => {
            "the certificate has expired; connect again with a renewed one"
        }
    };
    connection.close(why);
    debug!(%identity, reason = why, "member disconnected");
}
