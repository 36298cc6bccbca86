//! Sessions: one task per connection, which turns messages into events and back.

pub(crate) mod arrival;
pub(crate) mod client;
pub(crate) mod log;
mod membership;
pub(crate) mod refusal;
pub(crate) mod submit;
pub(crate) mod worker;
