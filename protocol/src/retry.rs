//! `on-failure: RETRY…`: whether a phase that failed runs again.

use regex::{Regex, RegexBuilder};

use crate::job::Retry;

/// How much memory a pattern may take when it is compiled, in bytes: ten times what a long list of messages
/// takes, and little enough that a batch of a thousand tasks with one each does no harm.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a pattern is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RetryPatternError {
    /// It makes no sense: its author has to mend it.
    #[error("`{pattern}` is no regular expression: {mistake}")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, on one line.
        mistake: String,
    },
    /// It is too large when it is written out: its author has to make it simpler.
    #[error("`{pattern}` is too large a regular expression")]
    TooLarge {
        /// The pattern.
        pattern: String,
    },
}

/// How often a phase may still run again, and after which failures.
#[derive(Clone, Debug)]
pub struct RetryRule {
    count: u32,
    used: u32,
    pattern: Regex,
}

impl RetryRule {
    /// The rule of a phase that has not run yet.
    ///
    /// # Errors
    ///
    /// If the pattern is none.
    pub fn new(retry: &Retry) -> Result<Self, RetryPatternError> {
        Ok(Self {
            count: retry.count,
            used: 0,
            pattern: compiled(&retry.pattern)?,
        })
    }

    /// Whether the phase runs again after it failed with `message`, which may match anywhere. If so, one
    /// time less is left.
    pub fn runs_again(&mut self, message: &str) -> bool {
        let again = self.used < self.count && self.pattern.is_match(message);
        self.used += u32::from(again);
        again
    }

    /// How often the phase has run again, and how often it may.
    pub const fn used_of(&self) -> (u32, u32) {
        (self.used, self.count)
    }
}

fn compiled(pattern: &str) -> Result<Regex, RetryPatternError> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => RetryPatternError::TooLarge {
            pattern: pattern.to_owned(),
        },
        error => {
            // The library draws the place of the mistake on lines above the last.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            RetryPatternError::Syntax {
                pattern: pattern.to_owned(),
                mistake: last.trim_start_matches("error: ").to_owned(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(count: u32, pattern: &str) -> Result<RetryRule, RetryPatternError> {
        let pattern = pattern.to_owned();
        RetryRule::new(&Retry { count, pattern })
    }

    #[test]
    fn a_phase_runs_again_as_often_as_it_may_and_no_more() {
        let mut rule = rule(2, ".*").unwrap();
        let again: Vec<_> = (0..4).map(|_| rule.runs_again("x\ny")).collect();
        assert_eq!(again, [true, true, false, false]);
        assert_eq!(rule.used_of(), (2, 2));
    }

    #[test]
    fn a_message_may_match_anywhere_and_one_that_does_not_uses_nothing_up() {
        let mut rule = rule(1, "exit status (2|3)$").unwrap();
        assert!(!rule.runs_again("Reason: exit status 1"));
        assert!(!rule.runs_again("Reason: exit status 20"));
        assert!(rule.runs_again("Reason: exit status 3"));
        assert!(!rule.runs_again("Reason: exit status 3"));
    }

    #[test]
    fn a_count_of_zero_never_runs_again() {
        assert!(!rule(0, ".*").unwrap().runs_again("x"));
    }

    #[test]
    fn what_is_no_pattern_says_why_on_one_line() {
        let error = rule(1, "(").unwrap_err().to_string();
        assert_eq!(error, "`(` is no regular expression: unclosed group");
        let error = rule(1, "(a{1000}){1000}").unwrap_err();
        assert!(matches!(error, RetryPatternError::TooLarge { .. }));
    }
}
