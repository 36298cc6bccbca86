//! Bytes that may be a buildspec: what they have to be before anything is parsed.

use protocol::message::client::BUILDSPEC_BYTES_MAX;

use crate::diagnostic::{Diagnostic, Place};

/// Why bytes cannot be a buildspec.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InputError {
    /// There is nothing: write a buildspec.
    #[error("buildspec is empty")]
    Empty,
    /// It is too large: surely another file was meant.
    #[error("buildspec has {bytes} bytes, at most {BUILDSPEC_BYTES_MAX} are allowed")]
    TooLarge {
        /// How many bytes there are.
        bytes: usize,
    },
    /// It is no text, or not in UTF-8: surely another file was meant.
    #[error("buildspec is no text in UTF-8: byte {offset} cannot be in one")]
    NotText {
        /// The first byte that cannot be there, from 0.
        offset: usize,
    },
}

impl InputError {
    /// The same for people.
    pub fn diagnostic(&self) -> Diagnostic {
        let hint = match self {
            Self::Empty => "start with `version: 0.2` and `phases:`",
            Self::TooLarge { .. } => {
                "is it the right file? Long commands can go into scripts of the repository"
            }
            Self::NotText { .. } => "is it the right file? Save it as UTF-8",
        };
        Diagnostic::error(Place::START, self.to_string()).with_hint(hint)
    }
}

/// The text that `bytes` are, if they can be a buildspec by their size and characters.
///
/// # Errors
///
/// If they are none, too many, or no text.
pub fn text_of(bytes: &[u8]) -> Result<&str, InputError> {
    if bytes.len() > BUILDSPEC_BYTES_MAX {
        return Err(InputError::TooLarge { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| InputError::NotText {
        offset: error.valid_up_to(),
    })?;
    // Other control characters are in no YAML either; those get their line from the parser.
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        return Err(InputError::NotText { offset });
    }
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Err(InputError::Empty);
    }
    Ok(text)
}
