//! Lanes: messages both ways over one stream, of which only so many are on their way at once.
//!
//! Whoever does not read a stream lets it fill its part of the connection's window, and a few such streams fill all
//! of it: then nothing gets through any more, of whatever else the connection carries. On a lane each side says what
//! it has handed on, and sends no more than the other has room for. So a reader who stands still holds up its lane
//! only.

use std::collections::VecDeque;

use protocol::message::lane::OnLane;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::{Stream, StreamError};

/// How much may be on its way on a lane, each way. Both sides have to have the same.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// How many messages.
    pub messages_max: u32,
    /// How long each of them may be, in bytes.
    pub bytes_max: usize,
}

impl Lane {
    /// Carries what comes from `outgoing` to the other side, and what comes from there to `incoming`, until the other
    /// side has finished and all is handed on, or nobody takes it any more. When `outgoing` ends, this side finishes,
    /// and takes what is on its way to it still; more than that does not come.
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
        let (mut sends, mut receives) = (true, true);
        while receives || !arrived.is_empty() {
            tokio::select! {
                biased;
                place = incoming.reserve(), if !arrived.is_empty() => {
                    let (Ok(place), Some(message)) = (place, arrived.pop_front()) else {
                        return Ok(());
                    };
                    place.send(message);
                    if sends {
                        send.message(&OnLane::<Out>::Taken(1)).await?;
                    }
                }
                () = incoming.closed() => return Ok(()),
                message = receive.message_within(self.bytes_max), if receives => match message? {
                    Some(OnLane::Passed(message)) if arrived.len() < self.messages_max as usize => {
                        arrived.push_back(message);
                    }
                    Some(OnLane::Passed(_)) => return Err(receive.violation(StreamError::Surplus)),
                    Some(OnLane::Taken(count)) => match on_their_way.checked_sub(count) {
                        Some(left) => on_their_way = left,
                        None => return Err(receive.violation(StreamError::Surplus)),
                    },
                    None => receives = false,
                },
                message = outgoing.recv(), if sends && on_their_way < self.messages_max => match message {
                    Some(message) => {
                        on_their_way += 1;
                        send.message(&OnLane::Passed(message)).await?;
                    }
                    None => {
                        sends = false;
                        send.finish();
                    }
                },
            }
        }
        Ok(())
    }
}
