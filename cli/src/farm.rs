//! A farm that a command talks to: found, joined, asked.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, anyhow};
use cache::client::CacheClient;
use protocol::{
    access::Role,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest, FarmInfo},
    },
};
use tokio::net::lookup_host;
use transport::{Client, Connection, Credentials, JoinToken, Stream};

use crate::{args::FarmArgs, error::CommandError, places::Places, settings::ClientFile};

/// The port of an address that names none.
const PORT_DEFAULT: u16 = 7420;

/// A connection to a farm's coordinator.
#[derive(Debug)]
pub(crate) struct Farm {
    client: Client,
    address: SocketAddr,
    connection: Connection,
}

impl Farm {
    /// Connects to the farm that arguments or settings name.
    ///
    /// # Errors
    ///
    /// If none is named, or it cannot be reached or joined.
    pub(crate) async fn named(
        args: &FarmArgs,
        settings: &ClientFile,
        places: &Places,
    ) -> Result<Option<Self>, CommandError> {
        let Some(name) = args.farm.as_ref().or(settings.farm.as_ref()) else {
            return Ok(None);
        };
        let address = resolve(name).await?;
        let directory = places.identity(name);
        let credentials =
            credentials(address, args.token.as_deref(), &directory, &host_name()).await?;
        Self::connect(address, &credentials).await.map(Some)
    }

    /// Connects with credentials.
    ///
    /// # Errors
    ///
    /// If the coordinator cannot be reached or refuses.
    pub(crate) async fn connect(
        address: SocketAddr,
        credentials: &Credentials,
    ) -> Result<Self, CommandError> {
        let client = Client::new(credentials).map_err(CommandError::farm)?;
        let connection = client
            .connect(address, Role::Coordinator)
            .await
            .map_err(CommandError::farm)?;
        Ok(Self {
            client,
            address,
            connection,
        })
    }

    /// Connects again after the connection was lost.
    ///
    /// # Errors
    ///
    /// If the coordinator cannot be reached.
    pub(crate) async fn reconnect(&mut self) -> Result<(), CommandError> {
        let connected = self.client.connect(self.address, Role::Coordinator).await;
        self.connection = connected.map_err(CommandError::farm)?;
        Ok(())
    }

    /// Asks for something that is answered at once.
    ///
    /// # Errors
    ///
    /// If the farm refuses or cannot be reached.
    pub(crate) async fn ask(&self, request: &ClientRequest) -> Result<ClientReply, CommandError> {
        self.open(request).await.map(|(reply, _)| reply)
    }

    /// Asks for something that more follows on.
    ///
    /// # Errors
    ///
    /// If the farm refuses or cannot be reached.
    pub(crate) async fn open(
        &self,
        request: &ClientRequest,
    ) -> Result<(ClientReply, Stream), CommandError> {
        let mut stream = self.connection.open().await.map_err(CommandError::farm)?;
        let reply: Result<ClientReply, Refusal> =
            stream.request(request).await.map_err(CommandError::farm)?;
        Ok((reply.map_err(CommandError::refused)?, stream))
    }

    /// What farm this is.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub(crate) async fn info(&self) -> Result<FarmInfo, CommandError> {
        match self.ask(&ClientRequest::Farm).await? {
            ClientReply::Farm(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Connects to the farm's cache.
    ///
    /// # Errors
    ///
    /// If the farm has none, or it cannot be reached.
    pub(crate) async fn cache(&self) -> Result<(CacheClient, FarmInfo), CommandError> {
        let info = self.info().await?;
        let Some(address) = info.cache else {
            let error = anyhow!("the farm at {} has no cache", self.address);
            return Err(CommandError::farm(error).hint("start one: `grange cache serve --join …`"));
        };
        let connection = self.client.connect(address, Role::Cache).await;
        let connection = connection.map_err(CommandError::farm)?;
        Ok((CacheClient::new(connection, info.team.clone()), info))
    }
}

/// An answer of a kind that the request does not have.
pub(crate) fn unexpected(reply: &ClientReply) -> CommandError {
    CommandError::farm(anyhow!(
        "the coordinator gave an unexpected answer: {reply:?}"
    ))
}

/// The address behind a name, with the default port if it has none.
///
/// # Errors
///
/// If nobody knows the name.
pub(crate) async fn resolve(name: &str) -> Result<SocketAddr, CommandError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let with_port = if name.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:{PORT_DEFAULT}")
    };
    let found = lookup_host(&with_port)
        .await
        .with_context(|| format!("failed to look up the farm `{name}`"));
    let first = found.map_err(CommandError::usage)?.next();
    first.ok_or_else(|| CommandError::usage(anyhow!("the name `{name}` has no address")))
}

/// The identity kept in `directory`, or a new one for `token`, called `name`.
///
/// # Errors
///
/// If there is neither, or the farm does not take the token.
pub(crate) async fn credentials(
    address: SocketAddr,
    token: Option<&str>,
    directory: &Path,
    name: &str,
) -> Result<Credentials, CommandError> {
    if let Some(credentials) = Credentials::load(directory).map_err(CommandError::farm)? {
        return Ok(credentials);
    }
    let Some(token) = token else {
        let error = anyhow!("this machine has not joined the farm at {address}");
        return Err(CommandError::usage(error)
            .hint("get a token from `grange token create` and give it with `--token`"));
    };
    let token: JoinToken = token.parse().map_err(CommandError::usage)?;
    enrol(address, &token, directory, name).await
}

/// Joins the farm at `address` as `name` and keeps the identity in `directory`. A worker's certificate
/// carries the worker's own name, so that no other can pose as it.
///
/// # Errors
///
/// If the farm does not take the token, or the identity cannot be kept.
pub(crate) async fn enrol(
    address: SocketAddr,
    token: &JoinToken,
    directory: &Path,
    name: &str,
) -> Result<Credentials, CommandError> {
    let credentials = transport::enrol(address, token, name)
        .await
        .map_err(CommandError::farm)?;
    credentials.save(directory).map_err(CommandError::farm)?;
    Ok(credentials)
}

/// What this machine is called.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
