//! The nouns of the farm, the messages that carry them, and their bytes.
//!
//! Everything that two crates say to each other is defined here. The crate is pure: it has no clock,
//! network, disk or tasks, and knows no other crate of the workspace. Two encodings live side by side
//! and must not be mixed up: [`canonical`] is hand-written and versioned, and is what is hashed or kept;
//! [`codec`] is derived, and is what messages travel in.

pub mod access;
pub mod agent_line;
pub mod archive;
pub mod arn;
pub mod artifact;
pub mod attributes;
pub mod blob;
pub mod build;
pub mod cache_spec;
pub mod canonical;
pub mod codec;
pub mod digest;
pub mod environment;
pub mod frame;
pub mod git;
pub mod graph;
pub mod job;
pub mod layout;
pub mod lease;
pub mod message;
pub mod name;
pub mod path;
pub mod project;
pub mod report;
pub mod report_group;
pub mod retry;
pub mod runtime;
pub mod secret;
pub mod snapshot;
pub mod time;
pub mod timeline;
pub mod tree;
pub mod variable;
pub mod version;
pub mod worker;
