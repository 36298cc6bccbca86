//! Lanes: messages both ways over one stream, of which only so many are on their way at once.
//!
//! Whoever does not read a stream lets it fill its part of the connection's window, and a few such streams fill all
//! of it: then nothing gets through any more, of whatever else the connection carries. On a lane each side says what
//! it has handed on, and sends no more than the other has room for. So a reader who stands still holds up its lane
//! only.

use std::{collections::VecDeque, time::Duration};

use protocol::message::lane::OnLane;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::mpsc, time::timeout};

use crate::{Stream, StreamError};

/// How long what has arrived is handed on whose sender is gone: a slow screen takes as long.
const REST_TIME: Duration = Duration::from_secs(5);

/// How much may be on its way on a lane, each way. Both sides have to have the same.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// How many messages.
    pub messages_max: u32,
    /// How long each of them may be, in bytes.
    pub bytes_max: usize,
}

impl Lane {
    /// Carries what comes from `outgoing` to the other side, and what comes from there to `incoming`, until both have
    /// ended and all is handed on, or the other side is gone, or nobody takes what it says any more. What has arrived
    /// of a side that is gone is handed on for five seconds more.
    ///
    /// # Errors
    ///
    /// If the stream breaks. What makes no sense, or is more than may be on its way, ends the connection.
    ///
    /// # Cancel safety
    ///
    /// The stream is of no more use, and the other side sees that.
    pub async fn carry<Out: Serialize, In: DeserializeOwned>(
        self,
        stream: Stream,
        mut outgoing: mpsc::Receiver<Out>,
        incoming: mpsc::Sender<In>,
    ) -> Result<(), StreamError> {
        let Stream {
            mut send,
            mut receive,
        } = stream;
        let mut on_their_way = 0_u32;
        let mut arrived = VecDeque::new();
        // Whether this side has more, whether the other has, and whether that hears anything.
        let (mut sends, mut receives, mut is_heard) = (true, true, true);
        let mut ended = Ok(());
        while sends || receives || !arrived.is_empty() {
            tokio::select! {
                biased;
                place = incoming.reserve(), if !arrived.is_empty() => {
                    let (Ok(place), Some(message)) = (place, arrived.pop_front()) else {
                        return Ok(());
                    };
                    place.send(message);
                    if is_heard {
                        match send.message(&OnLane::<Out>::Taken(1)).await {
                            // Whoever has said all, and heard all, does not wait for it.
                            Err(StreamError::Stopped) => is_heard = false,
                            told => told?,
                        }
                    }
                }
                () = incoming.closed(), if receives => return Ok(()),
                message = receive.message_within(self.bytes_max) => match message {
                    Ok(Some(OnLane::Passed(message)))
                        if receives && arrived.len() < self.messages_max as usize =>
                    {
                        arrived.push_back(message);
                    }
                    Ok(Some(OnLane::Taken(count @ 1..))) if count <= on_their_way => {
                        on_their_way -= count;
                    }
                    Ok(Some(OnLane::Ended)) if receives => receives = false,
                    Ok(Some(_)) => return Err(receive.violation(StreamError::Surplus)),
                    gone => {
                        ended = gone.map(drop);
                        break;
                    }
                },
                message = outgoing.recv(), if sends && on_their_way < self.messages_max => {
                    let said = message.map_or(OnLane::Ended, OnLane::Passed);
                    sends = matches!(said, OnLane::Passed(_));
                    on_their_way += u32::from(sends);
                    if let Err(error) = send.message(&said).await {
                        ended = Err(error);
                        break;
                    }
                }
            }
        }
        let rest = async {
            for message in arrived {
                if incoming.send(message).await.is_err() {
                    return;
                }
            }
        };
        // Nobody may take it, and nobody waits for that any more.
        let _all_or_given_up = timeout(REST_TIME, rest).await;
        ended
    }
}
