//! Words of a shell that stand for themselves.

use std::path::Path;

/// A path as one word. Names that are no text do not come here: the farm gives them.
pub(crate) fn of_path(path: &Path) -> String {
    of_text(&path.to_string_lossy())
}

/// A text as one word.
pub(crate) fn of_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_written() {
        for text in ["", "a b", "it's", "$(touch /x)", "a\nb", "\\'\""] {
            let printed = Command::new("sh")
                .args(["-c", &format!("printf %s {}", of_text(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
        }
    }
}
