//! `codebuild-tests-run`: runs the tests of this shard of a `build-fanout`; outside of one, all of them.

use std::{
    env,
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use clap::Parser;
use protocol::variable::{SHARD_COUNT, SHARD_INDEX};

use super::shard::{NoStrategy, files_of};

/// The variable that holds the files of this shard, by line, while its tests run.
const FILES: &str = "CODEBUILD_CURRENT_SHARD_FILES";

/// How many bytes the variable may have: Linux allows a text of the environment 128 KiB with its name.
const FILES_BYTES_MAX: usize = 127 * 1024;

/// The status of a command that a signal has ended, without the signal's number, as shells count it.
const ENDED_BY_SIGNAL: u8 = 128;

/// What the command is told.
#[derive(Debug, Parser)]
#[command(name = "codebuild-tests-run", about = "Run the tests of this shard")]
struct Arguments {
    /// Runs tests; the names of files are put after it.
    #[arg(long, value_name = "COMMAND")]
    test_command: String,
    /// Prints the names of all test files, by line.
    #[arg(long, value_name = "COMMAND")]
    files_search: String,
    /// How files are divided: equal-distribution or stability.
    #[arg(long, value_name = "STRATEGY", default_value = "equal-distribution")]
    sharding_strategy: String,
}

/// Why tests were not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// The strategy is none: name another.
    #[error(transparent)]
    Strategy(#[from] NoStrategy),
    /// A shell does not start.
    #[error("failed to run `{command}`")]
    Run {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The search finds nothing, in any shard: mend it.
    #[error("the search for test files `{command}` finds none")]
    NothingFound {
        /// The search.
        command: String,
    },
    /// The search failed: mend it.
    #[error("the search for test files `{command}` failed: {status}")]
    Search {
        /// The search.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Runs the tests of this shard; the status is theirs.
pub(super) fn run(words: impl Iterator<Item = std::ffi::OsString>) -> Result<ExitCode, String> {
    let name = std::ffi::OsString::from("codebuild-tests-run");
    let arguments = match Arguments::try_parse_from(std::iter::once(name).chain(words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let printed = error.print();
            drop(printed);
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    run_shard(&arguments).map_err(|error| protocol::report::Chain(&error).to_string())
}

fn run_shard(arguments: &Arguments) -> Result<ExitCode, RunError> {
    let strategy = arguments.sharding_strategy.parse()?;
    let all = found(&arguments.files_search)?;
    if all.is_empty() {
        let command = arguments.files_search.clone();
        return Err(RunError::NothingFound { command });
    }
    let files = files_of(all, strategy, shard());
    if files.is_empty() {
        // Without names, most test tools would run all tests.
        println("no test files for this shard");
        return Ok(ExitCode::SUCCESS);
    }
    let status = run_tests(&arguments.test_command, &files)?;
    Ok(ExitCode::from(code_of(status)))
}

/// Runs the tests of these files. Their names are words of their own for the shell, so that they need no quotes, and
/// many of them are not too much for one word.
fn run_tests(tests: &str, files: &[String]) -> Result<ExitStatus, RunError> {
    let mut command = shell(&format!("{tests} \"$@\""));
    command.arg("codebuild-tests-run").args(files);
    let lines = files.join("\n");
    if lines.len() <= FILES_BYTES_MAX {
        command.env(FILES, lines);
    } else {
        println(&format!(
            "{FILES} is not set: the names are too many for it"
        ));
    }
    command.status().map_err(|source| RunError::Run {
        command: tests.to_owned(),
        source,
    })
}

/// The status of a command as shells tell it.
fn code_of(status: ExitStatus) -> u8 {
    let by_signal = || {
        let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
        ENDED_BY_SIGNAL + signal.unwrap_or_default().min(127)
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or_else(by_signal)
}

/// The names that the search prints.
fn found(search: &str) -> Result<Vec<String>, RunError> {
    let output = shell(search).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| RunError::Run {
        command: search.to_owned(),
        source,
    })?;
    if !output.status.success() {
        return Err(RunError::Search {
            command: search.to_owned(),
            status: output.status,
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Which part of the tests this build runs, and of how many.
fn shard() -> (usize, usize) {
    let number = |name| variable(name)?.parse::<usize>().ok();
    match (number(SHARD_INDEX), number(SHARD_COUNT)) {
        (Some(index), Some(count)) if index < count => (index, count),
        _ => (0, 1),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a command of a build is told, it is told in its environment"
)]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    shell
}

fn println(text: &str) {
    let written = writeln!(io::stdout(), "codebuild-tests-run: {text}");
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reach_the_tests_as_they_are_however_many_they_are() {
        let files: Vec<_> = ["a b's.py", "tests/test_a.py::B", "-x"]
            .map(str::to_owned)
            .into();
        let script = tempfile::NamedTempFile::new().unwrap();
        let check = "test \"$*\" = \"x a b's.py tests/test_a.py::B -x\"";
        std::fs::write(script.path(), check).unwrap();
        let tests = format!("/bin/sh {} x", script.path().display());
        assert!(run_tests(&tests, &files).unwrap().success());
        let long = "x".repeat(200);
        let many: Vec<_> = (0..5_000).map(|file| format!("{long}/{file}")).collect();
        std::fs::write(script.path(), "test $# = 5001").unwrap();
        assert!(run_tests(&tests, &many).unwrap().success());
    }

    #[test]
    fn tests_that_a_signal_ends_fail_with_its_number() {
        let status = |command| code_of(shell(command).status().unwrap());
        assert_eq!(status("kill -9 $$"), 137);
        assert_eq!(status("exit 5"), 5);
        assert_eq!(status("true"), 0);
    }

    #[test]
    fn a_search_that_finds_nothing_at_all_is_an_error() {
        let arguments = Arguments {
            test_command: "true".to_owned(),
            files_search: "true".to_owned(),
            sharding_strategy: "stability".to_owned(),
        };
        let refused = run_shard(&arguments);
        assert!(matches!(refused, Err(RunError::NothingFound { .. })));
    }

    #[test]
    fn names_are_read_by_line_and_a_failed_search_is_an_error() {
        assert_eq!(found("printf 'a\\n\\n b c \\n'").unwrap(), ["a", "b c"]);
        assert!(matches!(found("exit 3"), Err(RunError::Search { .. })));
    }
}
