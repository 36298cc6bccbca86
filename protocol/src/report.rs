//! How errors are told: with all their causes, on one line.

use std::{error::Error, fmt};

/// An error and its causes, outermost first, with `: ` between them.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

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
    use std::num::ParseIntError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read `x`")]
    struct Outer {
        source: ParseIntError,
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let source = "y".parse::<u32>().unwrap_err();
        let text = Chain(&Outer { source }).to_string();
        assert_eq!(text, "failed to read `x`: invalid digit found in string");
    }
}
