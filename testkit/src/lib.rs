//! What tests and benchmarks share: a real farm of real processes on loopback, source trees from text,
//! waiting for states. Nothing that ships depends on this crate.

pub mod farm;
pub mod process;
pub mod program;
pub mod project;
pub mod wait;
