//! What two sides say on a lane: messages, of which only so many are on their way at once.

use serde::{Deserialize, Serialize};

/// One frame of a lane.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum OnLane<T> {
    /// A message to whoever is at the other end.
    Passed(T),
    /// So many more of the messages that came from there were handed on: there is room for as many.
    Taken(u32),
    /// Nothing more is passed; what comes from the other end is still taken.
    Ended,
}
