//! Errors with their causes, on one line.

pub(crate) use protocol::report::Chain;
