//! What a record of the journal says: one fact, as a line of JSON. The fact's own JSON is guarded by a
//! golden test of the scheduler.

use std::io;

use scheduler::{Fact, FoldError, Image, Ledger};

/// Why a record cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It says nothing that this program knows. Use the program that wrote it.
    #[error("record says no fact that is known")]
    Parse {
        /// What the parser says.
        #[from]
        source: serde_json::Error,
    },
    /// It does not follow from what stands before it. The journal is not what was written.
    #[error("record does not fit those before it")]
    Fold {
        /// What does not fit.
        #[from]
        source: FoldError,
    },
}

/// The line of a fact, without its end.
///
/// # Panics
///
/// If a fact cannot be JSON: facts have text keys only, and JSON escapes every line break.
pub fn encode(fact: &Fact) -> Vec<u8> {
    serde_json::to_vec(fact).expect("every fact can be JSON")
}

/// The fact of a line.
///
/// # Errors
///
/// If it is none that this program knows.
pub fn decode(line: &[u8]) -> Result<Fact, serde_json::Error> {
    serde_json::from_slice(line)
}

/// The whole state.
///
/// # Errors
///
/// If the state cannot be JSON.
pub fn encode_state(image: &Image) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(image)?)
}

/// The state that [`encode_state`] wrote.
///
/// # Errors
///
/// If it is none that this program knows.
pub fn decode_state(bytes: &[u8]) -> Result<Ledger, serde_json::Error> {
    serde_json::from_slice(bytes)
}
