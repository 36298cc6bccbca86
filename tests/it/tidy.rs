//! House rules that a machine can hold. Each is a ratchet: it only tightens.

mod documents;
mod edges;
mod names;
mod shape;
mod source;
