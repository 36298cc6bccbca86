//! House rules that a machine can hold. Each is a ratchet: it only tightens.

mod edges;
mod names;
mod shape;
mod source;
