//! The way to the coordinator: one connection after another, each with one work stream.
//!
//! A task of its own keeps the link: it connects, backs off when that fails, hands what comes to the
//! session and sends what the session gives it. A coordinator that does not read is no reason for the
//! session to wait: it gives up the connection instead.

use std::net::SocketAddr;

use protocol::{
    access::Role,
    message::{
        RefusalCode,
        work::{CoordinatorMessage, WorkRequest, WorkerMessage},
    },
};
use tokio::sync::mpsc;
use tracing::{info, warn};
use transport::{Client, ConnectError, Connection, SendHalf, Stream, StreamError, back_off};

use crate::report::Chain;

/// Messages from the coordinator that the session has not looked at yet: it looks at once.
const ARRIVED_MAX: usize = 64;

/// Messages to the coordinator that the network has not taken yet. A session sends a renewal every few
/// seconds and a result per attempt, so this many mean that nobody reads.
const LEAVING_MAX: usize = 256;

/// What happens on the link, in order.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// There is a stream; nothing was said on it yet.
    Up(Up),
    /// The coordinator says something.
    Arrived(CoordinatorMessage),
    /// The stream is gone; the next one is on its way.
    Down,
    /// There never was a stream, and there will be none until somebody changes something.
    Refused(Box<ConnectError>),
}

/// A stream to the coordinator.
#[derive(Debug)]
pub(crate) struct Up {
    /// The connection, for other streams.
    pub(crate) connection: Connection,
    /// Takes what is to be said.
    pub(crate) outgoing: mpsc::Sender<WorkerMessage>,
}

/// What keeps the link needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Where the coordinator is.
    pub(crate) address: SocketAddr,
    /// Who connects.
    pub(crate) client: Client,
    /// Differs between workers, so that they do not come back all at once.
    pub(crate) seed: u64,
}

impl Link {
    /// The queue that a session reads.
    pub(crate) fn queue() -> (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>) {
        mpsc::channel(ARRIVED_MAX)
    }

    /// Keeps the link until nobody reads `events` any more.
    pub(crate) async fn keep(self, events: mpsc::Sender<LinkEvent>) {
        let mut failures = 0;
        let mut linked_before = false;
        while !events.is_closed() {
            tokio::time::sleep(back_off(failures, self.seed)).await;
            let connected = self.connect().await;
            let (connection, stream) = match connected {
                Ok(connected) => connected,
                Err(error) if !linked_before && is_final(&error) => {
                    // Nobody reads: the worker is leaving anyway.
                    let _told = events.send(LinkEvent::Refused(Box::new(error))).await;
                    return;
                }
                Err(error) => {
                    failures += 1;
                    let address = self.address;
                    let error = Chain(&error);
                    warn!(coordinator = %address, failures, %error, "no link to the coordinator");
                    continue;
                }
            };
            linked_before = true;
            info!(coordinator = %self.address, "linked to the coordinator");
            let (heard, ended) = serve(&connection, stream, &events).await;
            // A coordinator that hangs up at once is one that is not ready yet.
            failures = if heard { 1 } else { failures + 1 };
            match ended {
                Some(reason) => {
                    warn!(coordinator = %self.address, reason, "link to the coordinator lost");
                }
                None => info!(coordinator = %self.address, "link to the coordinator given up"),
            }
            connection.close("worker lost its work stream");
            if events.send(LinkEvent::Down).await.is_err() {
                return;
            }
        }
    }

    async fn connect(&self) -> Result<(Connection, Stream), ConnectError> {
        let connection = self.client.connect(self.address, Role::Coordinator).await?;
        let stream = connection.open().await;
        let stream = stream.map_err(|source| ConnectError::Greet {
            service: Role::Coordinator,
            addr: self.address,
            source,
        })?;
        Ok((connection, stream))
    }
}

/// Whether trying again is of no use until somebody changes something.
const fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::NoService { .. }
        | ConnectError::OtherFarm { .. }
        | ConnectError::OtherService { .. }
        | ConnectError::Expired { .. }
        | ConnectError::NotTaken { .. }
        | ConnectError::Version { .. } => true,
        ConnectError::Refused { source, .. } => !matches!(
            source.code,
            RefusalCode::Unavailable | RefusalCode::ResourceExhausted | RefusalCode::Internal
        ),
        _ => false,
    }
}

/// Carries messages both ways until the stream ends. Gives whether the coordinator said anything, and
/// why the stream ended; `None`: the worker wants no more.
async fn serve(
    connection: &Connection,
    stream: Stream,
    events: &mpsc::Sender<LinkEvent>,
) -> (bool, Option<String>) {
    let (outgoing, to_send) = mpsc::channel(LEAVING_MAX);
    let up = Up {
        connection: connection.clone(),
        outgoing,
    };
    if events.send(LinkEvent::Up(up)).await.is_err() {
        return (false, None);
    }
    let Stream { send, mut receive } = stream;
    let mut heard = false;
    let receiving = async {
        loop {
            match receive.message::<CoordinatorMessage>().await {
                Ok(Some(message)) => {
                    heard = true;
                    if events.send(LinkEvent::Arrived(message)).await.is_err() {
                        return None;
                    }
                }
                Ok(None) => return Some("the coordinator ended the stream".to_owned()),
                Err(error) => return Some(Chain(&error).to_string()),
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = receiving => ended,
        sent = send_all(send, to_send) => match sent {
            Ok(()) => None,
            Err(error) => Some(Chain(&error).to_string()),
        },
    };
    (heard, ended)
}

/// Sends until the session drops its end.
async fn send_all(
    mut send: SendHalf,
    mut messages: mpsc::Receiver<WorkerMessage>,
) -> Result<(), StreamError> {
    send.message(&WorkRequest::Session).await?;
    while let Some(message) = messages.recv().await {
        send.message(&message).await?;
    }
    send.finish();
    Ok(())
}
