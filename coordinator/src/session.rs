//! Sessions: one task per connection, which turns messages into events and back.

pub(crate) mod arrival;
pub(crate) mod client;
mod guests;
pub(crate) mod log;
mod membership;
pub(crate) mod refusal;
mod result;
pub(crate) mod submit;
pub(crate) mod worker;
