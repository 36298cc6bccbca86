//! The address of a build's page, by a pattern of the farm's owner. Pure.

use protocol::message::work::Assignment;

/// The variable that has it.
const VARIABLE: &str = "CODEBUILD_BUILD_URL";
/// Where builds find their number.
const NUMBER: &str = "CODEBUILD_BUILD_NUMBER";

/// How long a pattern may be, in bytes: what browsers take.
const PATTERN_BYTES_MAX: usize = 2048;

/// Whether a text can be the pattern of addresses: one of http, that says of which build.
pub(crate) fn is_pattern(text: &str) -> bool {
    let is_address = text.starts_with("https://") || text.starts_with("http://");
    let is_of_one =
        text.contains("{id}") || text.contains("{project}") && text.contains("{number}");
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_address && is_of_one && is_plain && text.len() <= PATTERN_BYTES_MAX
}

/// Tells an attempt where the page of its build is.
pub(crate) fn tell(assignment: &mut Assignment, pattern: &str) {
    let number = assignment.variables.get(NUMBER).map(String::as_str);
    let url = pattern
        .replace("{id}", &assignment.job.build.to_string())
        .replace("{project}", assignment.project.as_str())
        .replace("{number}", number.unwrap_or_default());
    assignment.variables.insert(VARIABLE.to_owned(), url);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_an_address_that_says_of_which_build() {
        for good in [
            "https://ci.example.org/builds/{id}",
            "http://ci/{project}/{number}",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "",
            "ci/{id}",
            "https://ci/",
            "https://ci/{number}",
            "https://ci/{id} x",
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
