//! A farm that a command talks to: found, connected to, asked.

use std::net::SocketAddr;

use anyhow::anyhow;
use cache::client::CacheClient;
use protocol::{
    access::Role,
    message::{
        Refusal,
        client::{ClientReply, ClientRequest, FarmInfo},
    },
};
use transport::{Client, Connection, Credentials, Stream};

use crate::{
    address::resolve,
    args::FarmArgs,
    error::{CommandError, NoCache},
    identity::{Membership, Wanted, host_name},
    places::Places,
    settings::ClientFile,
};

/// A connection to a farm's coordinator. Clones lose and make their connections apart.
#[derive(Clone, Debug)]
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
        let membership = Membership {
            address,
            directory: places.identity(address),
            name: host_name(),
            wanted: Wanted::Client,
        };
        let credentials = membership.credentials(args.token.as_deref()).await?;
        let client = Client::new(&credentials).map_err(CommandError::farm)?;
        let connection = client.connect(address, Role::Coordinator).await;
        Ok(Some(Self {
            client,
            address,
            connection: connection.map_err(|error| membership.not_connected(error))?,
        }))
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
            let address = self.address;
            return Err(CommandError::farm(NoCache { address })
                .hint("start one: `grange cache serve --join …`"));
        };
        let connections = cache::client::connect(&self.client, address, 1).await;
        let connections = connections.map_err(CommandError::farm)?;
        let client = CacheClient::with_bulk(connections, info.team.clone());
        Ok((client, info))
    }
}

/// An answer of a kind that the request does not have.
pub(crate) fn unexpected(reply: &ClientReply) -> CommandError {
    CommandError::farm(anyhow!(
        "the coordinator gave an unexpected answer: {reply:?}"
    ))
}
