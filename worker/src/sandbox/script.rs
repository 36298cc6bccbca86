//! The texts that shells run: the wrapper around a command, and the wrapper around a word.
//!
//! The wrapper is `CodeBuild`'s: the saved directory, `set -a`, the saved variables, the command from
//! line 4 on, then its status, the variables and the directory are saved. So variables persist without
//! `export`, functions and options do not, and a command that leaves its shell early saves nothing.

use std::{collections::BTreeMap, path::Path};

use protocol::job::Shell;

/// Variables that bash sets itself and lets nobody assign.
const BASH_READ_ONLY: [&str; 6] = [
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// Where the wrapper finds and leaves its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatePaths<'a> {
    /// The variables, as a script.
    pub(super) variables: &'a Path,
    /// Where the variables are saved.
    pub(super) new_variables: &'a Path,
    /// Where the directory is saved.
    pub(super) new_directory: &'a Path,
}

/// The script that runs `command` in `directory`.
pub(super) fn command(paths: StatePaths<'_>, directory: &[u8], command: &str) -> Vec<u8> {
    let mut script = prologue(paths, directory);
    script.extend_from_slice(command.as_bytes());
    script.extend_from_slice(b"\nCODEBUILD_LAST_EXIT=$?\nexport -p > ");
    script.extend(quoted(path_bytes(paths.new_variables)));
    script.extend_from_slice(b"\npwd > ");
    script.extend(quoted(path_bytes(paths.new_directory)));
    script.extend_from_slice(b"\nexit \"$CODEBUILD_LAST_EXIT\"\n");
    script
}

/// The script that writes what `text` expands to in double quotes, and a newline.
///
/// The text stands in a here-document, which expands as double quotes do but takes `"` as it is, so that
/// no text can end it.
pub(super) fn expansion(paths: StatePaths<'_>, directory: &[u8], text: &str) -> Vec<u8> {
    let mut end = "GRANGE_END".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    let mut script = prologue(paths, directory);
    let document = format!("command -p cat <<{end}\n{text}\n{end}\n");
    script.extend_from_slice(document.as_bytes());
    script
}

/// The three lines before the user's text.
fn prologue(paths: StatePaths<'_>, directory: &[u8]) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    // A directory is absolute, so that it is not taken for an option. A newline in its name would move
    // the user's line 4, which nobody who names directories so will mind.
    script.extend(quoted(directory));
    script.extend_from_slice(b"\nset -a\n. ");
    script.extend(quoted(path_bytes(paths.variables)));
    script.push(b'\n');
    script
}

/// The script that sets and exports `variables`. Names that no shell variable can have are left out.
pub(super) fn exports(variables: &BTreeMap<String, Vec<u8>>, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    for (name, value) in variables {
        let taken = shell == Shell::Bash && BASH_READ_ONLY.contains(&name.as_str());
        if is_name(name.as_bytes()) && !taken {
            script.extend_from_slice(b"export ");
            script.extend_from_slice(name.as_bytes());
            script.push(b'=');
            script.extend(quoted(value));
            script.push(b'\n');
        }
    }
    script
}

/// Whether a shell variable can have this name.
pub(super) fn is_name(name: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(word)
}

/// The bytes as one word for the shell.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut word = Vec::with_capacity(bytes.len() + 2);
    word.push(b'\'');
    for &byte in bytes {
        if byte == b'\'' {
            word.extend_from_slice(br"'\''");
        } else {
            word.push(byte);
        }
    }
    word.push(b'\'');
    word
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> StatePaths<'static> {
        StatePaths {
            variables: Path::new("/s/env.sh"),
            new_variables: Path::new("/s/env.sh.new"),
            new_directory: Path::new("/s/dir.txt.new"),
        }
    }

    #[test]
    fn the_users_text_starts_at_line_four() {
        let script = String::from_utf8(command(paths(), b"/src", "make\nmake test")).unwrap();
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(
            lines,
            [
                "cd '/src'",
                "set -a",
                ". '/s/env.sh'",
                "make",
                "make test",
                "CODEBUILD_LAST_EXIT=$?",
                "export -p > '/s/env.sh.new'",
                "pwd > '/s/dir.txt.new'",
                "exit \"$CODEBUILD_LAST_EXIT\"",
            ]
        );
    }

    #[test]
    fn a_directory_cannot_end_its_quotes() {
        let script = command(paths(), b"/it's $(here)", "true");
        assert!(script.starts_with(b"cd '/it'\\''s $(here)'\n"));
    }

    #[test]
    fn a_word_cannot_end_its_document() {
        let script = expansion(paths(), b"/", "a\nGRANGE_END\nrm -rf x");
        let script = String::from_utf8(script).unwrap();
        assert!(script.ends_with("<<GRANGE_END_\na\nGRANGE_END\nrm -rf x\nGRANGE_END_\n"));
    }

    #[test]
    fn names_that_no_variable_can_have_are_left_out() {
        let variables = BTreeMap::from([
            ("1A".to_owned(), b"x".to_vec()),
            ("A".to_owned(), b"it's\n\xff".to_vec()),
            ("a.b".to_owned(), b"x".to_vec()),
            ("UID".to_owned(), b"0".to_vec()),
        ]);
        assert_eq!(
            exports(&variables, Shell::Bash),
            b"export A='it'\\''s\n\xff'\n"
        );
        assert!(exports(&variables, Shell::Sh).ends_with(b"export UID='0'\n"));
    }
}
