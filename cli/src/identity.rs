//! Who this machine is at a farm: the identity that is kept, renewed in time, or got for a token.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use protocol::access::Role;
use tracing::warn;
use transport::{ConnectError, Credentials, EnrolError, JoinToken};

use crate::{
    clock,
    error::{CommandError, is_askers_doing},
};

/// The file that holds an identity, in its directory.
const FILE: &str = "identity.pem";

/// What an identity has to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// Anybody who submits builds.
    Client,
    /// A service of this role.
    Service(Role),
}

impl Wanted {
    fn is(self, role: Role) -> bool {
        match self {
            Self::Client => role.is_client(),
            Self::Service(wanted) => role == wanted,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("developer, ci or admin"),
            Self::Service(role) => write!(f, "{role}"),
        }
    }
}

/// An identity at one farm, and where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    /// The farm's coordinator.
    pub(crate) address: SocketAddr,
    /// Where the identity is kept.
    pub(crate) directory: PathBuf,
    /// What the member is called. A worker's certificate carries the worker's own name, so that no other
    /// can pose as it.
    pub(crate) name: String,
    /// What it has to be.
    pub(crate) wanted: Wanted,
}

impl Membership {
    /// The identity that is kept, or a new one for the token. A token is not spent while the identity that
    /// is kept serves.
    ///
    /// # Errors
    ///
    /// If there is neither, or the farm does not take the token.
    pub(crate) async fn credentials(
        &self,
        token: Option<&str>,
    ) -> Result<Credentials, CommandError> {
        let token = token.map(str::parse::<JoinToken>).transpose();
        let token = token.map_err(CommandError::usage)?;
        let kept = match Credentials::load(&self.directory) {
            Ok(kept) => kept,
            // A token makes up for what is damaged.
            Err(_) if token.is_some() => None,
            Err(error) => {
                let hint = format!("remove `{}`, and join again", self.file().display());
                return Err(CommandError::farm(error).hint(hint));
            }
        };
        let objection = kept
            .as_ref()
            .and_then(|kept| self.objection(kept, token.as_ref()));
        match (kept, objection, token) {
            (Some(kept), None, _) => Ok(self.renewed(kept).await),
            (_, _, Some(token)) => self.enrol(&token).await,
            (Some(_), Some(objection), None) => {
                Err(CommandError::usage(anyhow!(objection)).hint(format!(
                    "it is kept in `{}`; to join anew, give a token with `--token`",
                    self.file().display()
                )))
            }
            (None, _, None) => {
                let error = anyhow!("this machine has not joined the farm at {}", self.address);
                Err(CommandError::usage(error)
                    .hint("get a token from `grange token create` and give it with `--token`"))
            }
        }
    }

    /// Joins the farm and keeps the identity, if it is what is wanted.
    ///
    /// # Errors
    ///
    /// If the farm does not take the token, the token is for another role, or the identity cannot be kept.
    pub(crate) async fn enrol(&self, token: &JoinToken) -> Result<Credentials, CommandError> {
        let enrolled = transport::enrol(self.address, token, &self.name).await;
        let credentials = enrolled.map_err(not_enrolled)?;
        let role = credentials.identity.role;
        if !self.wanted.is(role) {
            let wanted = self.wanted;
            let error = anyhow!("the token is for a {role}, and a {wanted} is needed");
            let hint = "make one with `grange token create --role ROLE`";
            return Err(CommandError::usage(error).hint(hint));
        }
        let saved = credentials.save(&self.directory);
        saved.map_err(CommandError::farm)?;
        Ok(credentials)
    }

    /// Why an identity that is kept is of no use; `None`: it is.
    pub(crate) fn objection(
        &self,
        kept: &Credentials,
        token: Option<&JoinToken>,
    ) -> Option<String> {
        let identity = &kept.identity;
        let wanted = self.wanted;
        if kept.valid_until() <= clock::wall() {
            return Some(format!("the certificate of {identity} has expired"));
        }
        if token.is_some_and(|token| token.fingerprint != kept.fingerprint()) {
            return Some(format!("the certificate of {identity} is of another farm"));
        }
        if !wanted.is(identity.role) {
            let message = format!("the identity kept here is {identity}, and a {wanted} is needed");
            return Some(message);
        }
        let other_name = wanted == Wanted::Service(Role::Worker) && identity.name != self.name;
        other_name.then(|| {
            let name = &self.name;
            format!("the identity kept here is {identity}, and this worker is called `{name}`")
        })
    }

    /// The credentials, renewed if they are half over. Those that cannot be renewed still count.
    async fn renewed(&self, kept: Credentials) -> Credentials {
        if !is_half_over(&kept) {
            return kept;
        }
        match transport::renew(self.address, &kept).await {
            Ok(renewed) => {
                if let Err(error) = renewed.save(&self.directory) {
                    warn!(%error, "renewed certificate cannot be kept");
                }
                renewed
            }
            Err(error) => {
                warn!(%error, "certificate cannot be renewed");
                kept
            }
        }
    }

    /// A connection that did not come up; says where the identity lies if that is what is wrong.
    pub(crate) fn not_connected(&self, error: ConnectError) -> CommandError {
        let about_identity = matches!(
            error,
            ConnectError::OtherFarm { .. }
                | ConnectError::Expired { .. }
                | ConnectError::NotTaken { .. }
                | ConnectError::Refused { .. }
        );
        let error = CommandError::farm(error);
        if !about_identity {
            return error;
        }
        error.hint(format!(
            "this machine's identity there is kept in `{}`; to join anew, remove it and give a token with \
             `--token`",
            self.file().display()
        ))
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }
}

/// Whose doing it is that a token bought nothing.
fn not_enrolled(error: EnrolError) -> CommandError {
    let is_typed = match &error {
        EnrolError::OtherFarm { .. } => true,
        EnrolError::Connect { source, .. } => match &**source {
            ConnectError::Refused { source, .. } => is_askers_doing(source.code),
            _ => false,
        },
        _ => false,
    };
    if is_typed {
        return CommandError::usage(error).hint("`grange token create` makes another token");
    }
    CommandError::farm(error)
}

/// Whether it is time for a new certificate.
pub(crate) fn is_half_over(credentials: &Credentials) -> bool {
    credentials.renew_at() <= clock::wall()
}

/// Where a service keeps its identity.
pub(crate) fn of_service(data: &Path) -> PathBuf {
    data.join("identity")
}

/// What this machine is called.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
