//! The cache: chunks, trees, results and references; server and client.

mod beneath;
pub mod capture;
pub mod chunking;
pub mod packing;
pub mod progress;
pub mod selection;
