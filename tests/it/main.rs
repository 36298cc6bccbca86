//! Tests of the whole: features end to end on a real farm on loopback, and the house rules.
//!
//! One binary, so that the shells are linked once. Modules are named after features. Slow tests return
//! early unless `GRANGE_SLOW_TESTS=1` is set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attach;
mod batch;
mod building;
mod builds;
mod buildspec;
mod cache_crashes;
mod cache_damage;
mod cache_hostile;
mod caching;
mod cli;
mod cold;
mod conformance;
mod corpus;
mod credentials;
mod directories;
mod environment;
mod far;
mod full;
mod fuzzed;
mod history;
mod home;
mod hostile;
mod isolation;
mod joining;
mod leaving;
mod leftovers;
mod levels;
mod packages;
mod partition;
mod power;
mod projects;
mod recovery;
mod sandbox;
mod secrets;
mod simulation;
mod sources;
mod state_lost;
mod survival;
mod tidy;
mod transcripts;
mod unasked;
mod up;
