//! The coordinator's own identity: the farm's authority, the key of grants, and the certificates that it
//! makes for itself.

use std::{sync::Arc, time::Duration};

use protocol::{
    access::{Identity, Role},
    name::Team,
    report::Chain,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use transport::{
    Authority, AuthorityError, Client, Credentials, GrantSigner, KeepError, SelfIssueError, Server,
};

use crate::{
    clock,
    directory::{self, Directory, DirectoryError},
    farm::Farm,
};

/// How long the coordinator's own certificate lives. It makes a new one at half of that.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the credentials in [`Ready`](crate::Ready) live. They are for the process that runs the
/// coordinator, which nobody renews them for.
const ADMIN_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How long to wait before the next try after a new certificate could not be made or used.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no place to keep it.
    #[error("failed to make a place for the farm's keys")]
    Directory {
        /// Why.
        #[from]
        source: DirectoryError,
    },
    /// The farm's authority cannot be read or made. Put a copy back: without it every member has to join
    /// again.
    #[error("failed to open the farm's authority")]
    Authority {
        /// Why.
        #[from]
        source: AuthorityError,
    },
    /// A key or certificate cannot be read or written.
    #[error("failed to keep the farm's keys")]
    Keep {
        /// Why.
        #[from]
        source: KeepError,
    },
    /// No certificate could be made.
    #[error("failed to make a certificate for the coordinator")]
    Issue {
        /// Why.
        #[from]
        source: SelfIssueError,
    },
}

/// Who the coordinator is.
#[derive(Debug)]
pub(crate) struct OwnIdentity {
    /// Who makes certificates.
    pub authority: Authority,
    /// Who makes grants valid.
    pub signer: GrantSigner,
    /// The coordinator's own.
    pub own: Credentials,
    /// For whoever runs the coordinator.
    pub admin: Credentials,
}

/// Opens the identity in a data directory, making at the first start what is not there.
///
/// # Errors
///
/// If something is there and cannot be used, or nothing can be made.
pub(crate) fn open(directory: &Directory, team: &Team) -> Result<OwnIdentity, IdentityError> {
    let [authority, grants, identity] =
        ["authority", "grants", "identity"].map(|name| directory.join(name));
    for path in [&authority, &grants, &identity] {
        directory::create(path)?;
    }
    let authority = Authority::load_or_create(&authority)?;
    let signer = GrantSigner::load_or_create(&grants)?;
    let kept = Credentials::load(&identity)?;
    // One that is of another farm, or half over, is of no use.
    let usable = kept.filter(|kept| {
        kept.fingerprint() == authority.fingerprint()
            && kept.grant_key() == signer.public_key()
            && clock::wall() < kept.renew_at()
    });
    let own = match usable {
        Some(own) => own,
        None => {
            let own = issue(&authority, &signer, own_identity(team), LIFETIME)?;
            own.save(&identity)?;
            own
        }
    };
    let admin = Identity {
        team: team.clone(),
        role: Role::Admin,
        name: "local".to_owned(),
    };
    let admin = issue(&authority, &signer, admin, ADMIN_LIFETIME)?;
    Ok(OwnIdentity {
        authority,
        signer,
        own,
        admin,
    })
}

fn own_identity(team: &Team) -> Identity {
    Identity {
        team: team.clone(),
        role: Role::Coordinator,
        name: "coordinator".to_owned(),
    }
}

fn issue(
    authority: &Authority,
    signer: &GrantSigner,
    identity: Identity,
    lifetime: Duration,
) -> Result<Credentials, SelfIssueError> {
    let grant_key = signer.public_key();
    Credentials::self_issued(authority, identity, &grant_key, clock::wall(), lifetime)
}

/// Renews the coordinator's certificate in time, until stopped.
pub(crate) async fn renew(
    farm: Arc<Farm>,
    (server, client): (Arc<Server>, Client),
    mut own: Credentials,
    stop: CancellationToken,
) {
    let mut wait = own.renew_at().since(clock::wall());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        match renewed(&farm, &server, &client, &own.identity) {
            Ok(credentials) => {
                info!("the coordinator's certificate is renewed");
                own = credentials;
                wait = own.renew_at().since(clock::wall());
            }
            Err(failure) => {
                error!(
                    error = failure,
                    "failed to renew the coordinator's certificate"
                );
                wait = RENEWAL_PAUSE;
            }
        }
    }
}

/// A new certificate, in use from the next connection on.
fn renewed(
    farm: &Farm,
    server: &Server,
    client: &Client,
    identity: &Identity,
) -> Result<Credentials, String> {
    let told = |error: &(dyn std::error::Error + 'static)| Chain(error).to_string();
    let own = issue(&farm.authority, &farm.signer, identity.clone(), LIFETIME)
        .map_err(|error| told(&error))?;
    let replaced = server.replace_credentials(&own);
    replaced.map_err(|error| told(&error))?;
    let replaced = client.replace_credentials(&own);
    replaced.map_err(|error| told(&error))?;
    let saved = own.save(&farm.directory.join("identity"));
    saved.map_err(|error| told(&error))?;
    Ok(own)
}
