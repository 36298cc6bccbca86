//! Sessions: one task per connection, which turns messages into events and back.

pub(crate) mod arrival;
pub(crate) mod client;
mod delivery;
mod fetched;
mod held_source;
pub(crate) mod log;
mod membership;
mod plan;
mod project;
mod recipe;
pub(crate) mod refusal;
mod result;
mod secret;
pub(crate) mod submit;
pub(crate) mod terminals;
pub(crate) mod worker;
