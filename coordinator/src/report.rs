//! How errors are logged: with all their causes, in one line.

use std::{error::Error, fmt};

/// An error and its causes, outermost first, with `: ` between them.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read `x`")]
    struct Outer {
        source: io::Error,
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let error = Outer {
            source: io::Error::other("disk is gone"),
        };
        assert_eq!(
            Chain(&error).to_string(),
            "failed to read `x`: disk is gone"
        );
    }
}
