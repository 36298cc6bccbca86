//! What is wrong with a text that is no YAML, in words that name the repair.

use crate::{diagnostic::Diagnostic, yaml::SyntaxError};

/// The one error that a text gets that is no YAML.
pub(crate) fn diagnose(_text: &str, error: &SyntaxError) -> Diagnostic {
    Diagnostic::error(error.place, format!("this is no YAML: {}", error.problem))
}
