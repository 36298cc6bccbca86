//! Sending requests, and having them answered by a cache that cannot for the moment.

use std::time::Duration;

use protocol::message::{
    Refusal, RefusalCode,
    cache::{CacheReply, CacheRequest},
};
use tokio::time::sleep;
use transport::{Connection, SendHalf, StreamError};

use super::CacheError;
use crate::gather::Gather;

/// How often a cache is asked again that says that it will do it later, and how long it is waited for if it
/// does not say.
const WAITED_MAX: u32 = 15;
const WAIT: Duration = Duration::from_secs(1);

/// From this size on requests go one after another, in bytes: as many as there may be at once that are smaller fill
/// half of what a connection may have on its way. The cache receives a few at a time, and parts of others would
/// leave those no room.
const LARGE_BYTES: usize = 16 * 1024;
/// In whose name they wait for their turn: no team is called that.
pub(crate) const LARGE: &str = "large requests";

/// Asks over `connection`, again while the cache says that it will answer later.
pub(super) async fn ask_over(
    connection: &Connection,
    what: &'static str,
    request: CacheRequest,
) -> Result<CacheReply, CacheError> {
    let mut waited = 0;
    loop {
        let answer = ask_once(connection, &request).await;
        match answer.map_err(|source| CacheError::Stream { what, source })? {
            // The store is being opened again, which takes seconds at most, mostly.
            Err(refusal) if refusal.code == RefusalCode::Unavailable && waited < WAITED_MAX => {
                waited += 1;
                sleep(refusal.retry_after.unwrap_or(WAIT)).await;
            }
            answer => return answer.map_err(|source| CacheError::Refused { what, source }),
        }
    }
}

async fn ask_once(
    connection: &Connection,
    request: &CacheRequest,
) -> Result<Result<CacheReply, Refusal>, StreamError> {
    let mut stream = connection.open().await?;
    match send(connection, &mut stream.send, request).await {
        // A cache that refuses early stops reading, and says why.
        Ok(()) | Err(StreamError::Stopped) => stream.answer().await,
        Err(error) => Err(error),
    }
}

/// Sends `request`, after other large ones on `connection` if it is large.
pub(super) async fn send(
    connection: &Connection,
    send: &mut SendHalf,
    request: &CacheRequest,
) -> Result<(), StreamError> {
    let mut gather = Gather::default();
    let gathered = gather.message(request);
    gathered.map_err(|source| StreamError::Encode { source })?;
    let _turn = match LARGE_BYTES <= gather.bytes() {
        true => Some(connection.turn(LARGE).await),
        false => None,
    };
    send.pieces(gather.take()).await
}
