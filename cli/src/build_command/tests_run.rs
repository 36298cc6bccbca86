//! `codebuild-tests-run`: runs the tests of this shard of a `build-fanout`; outside of one, all of them.

use std::{
    env,
    io::{self, Write as _},
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use protocol::variable::{SHARD_COUNT, SHARD_INDEX};

use super::shard::{NoStrategy, files_of};

/// The variable that holds the files of this shard, by line, while its tests run.
const FILES: &str = "CODEBUILD_CURRENT_SHARD_FILES";

/// The status of a command that a signal has ended, as shells count it.
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
    /// The search failed: mend it.
    #[error("the search for test files `{command}` failed: {status}")]
    Search {
        /// The search.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
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
    let files = files_of(found(&arguments.files_search)?, strategy, shard());
    if files.is_empty() {
        // Without names, most test tools would run all tests.
        println("no test files for this shard");
        return Ok(ExitCode::SUCCESS);
    }
    let quoted: Vec<_> = files.iter().map(|file| quoted(file)).collect();
    let command = format!("{} {}", arguments.test_command, quoted.join(" "));
    let status = shell(&command)
        .env(FILES, files.join("\n"))
        .status()
        .map_err(|source| RunError::Run {
            command: arguments.test_command.clone(),
            source,
        })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(ENDED_BY_SIGNAL)))
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

/// The name as one word for the shell; as it is, if it needs no quotes.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_it_are_quoted() {
        assert_eq!(quoted("tests/test_a.py::B"), "tests/test_a.py::B");
        assert_eq!(quoted("a b's.py"), r"'a b'\''s.py'");
    }

    #[test]
    fn names_are_read_by_line_and_a_failed_search_is_an_error() {
        assert_eq!(found("printf 'a\\n\\n b c \\n'").unwrap(), ["a", "b c"]);
        assert!(matches!(found("exit 3"), Err(RunError::Search { .. })));
    }
}
