//! The cache: chunks, trees, results and references; server and client.

pub mod allocator;
mod beneath;
pub mod capture;
pub mod chunking;
pub mod client;
mod clock;
pub mod cold;
pub mod compression;
mod cutting;
pub mod download;
pub mod eviction;
pub mod file;
#[cfg(test)]
mod fixture;
mod gather;
pub mod globs;
pub mod hits;
mod holds;
mod hot;
pub mod index;
mod known;
pub mod materialize;
pub mod metrics;
pub mod ongoing;
pub mod packing;
pub mod progress;
pub mod put;
pub mod selection;
pub mod server;
pub mod source;
mod store;
pub mod upload;
pub mod verify;
