//! What is said about mistakes: all of them, each at its place and with its repair.

use super::*;
use crate::diagnostic::Diagnostic;

/// `error 4:5+7 message` for each remark, and its advice below it.
fn report(diagnostics: &[Diagnostic]) -> String {
    let mut report = String::new();
    for Diagnostic {
        severity,
        place,
        message,
        hint,
        codebuild,
    } in diagnostics
    {
        let severity = severity.as_str();
        report += &format!(
            "{severity} {}:{}+{} {message}\n",
            place.line, place.column, place.length
        );
        if let Some(hint) = hint {
            report += &format!("    {hint}\n");
        }
        if let Some(says) = codebuild {
            report += &format!("    CodeBuild: {says}\n");
        }
    }
    report
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let parsed = parse(text);
    assert_eq!(report(&parsed.diagnostics), expected, "about\n{text}");
    assert_eq!(
        parsed.spec.is_none(),
        expected.contains("error "),
        "about\n{text}"
    );
}

/// `check` of a file with these commands.
#[track_caller]
fn check_commands(lines: &str, expected: &str) {
    check(&with_commands(lines), expected);
}

#[test]
fn all_mistakes_of_a_file_are_found_in_one_pass() {
    check(
        "\
version: 0.3
env:
  shell: powershell
  variables: [A]
phases:
  build:
    comands:
      - a
    on-failure: abort
  post_build:
    commands:
      - echo Status: done
artifacts:
  discard-paths: maybe
",
        "\
error 1:10+3 `version` has to be 0.1 or 0.2, not `0.3`
    it is the version of the buildspec language; `version: 0.2` is the current one
warning 3:10+10 `env.shell` is `powershell`, a shell of Windows, and the farm's workers run Linux
    on the farm it cannot run; on Linux, use `bash`
error 4:14+0 `env.variables` has to be a mapping, not a list
    take the `- ` away
error 6:3+5 phase `build` has no `commands`
    add `commands:` with a list, or take the phase out
warning 7:5+7 unknown key `comands` in a phase
    did you mean `commands`?
error 9:17+5 `phases.build.on-failure` has to be `ABORT`, `CONTINUE` or `RETRY`, not `abort`
    write it in capitals: `ABORT`
error 12:9+0 command 1 of `phases.post_build.commands` is read as a mapping, because of the `: ` in it
    put it in quotes: `- 'echo Status: done'`
    CodeBuild: YAML_FILE_ERROR: Expected Commands[0] to be of string type: found subkeys instead at line 12, value of the key tag on line 11 might be empty
error 14:3+0 `artifacts` has no `files`, so there is nothing to publish
    add `files:` with patterns; `'**/*'` is everything
error 14:18+5 `artifacts.discard-paths` has to be `yes` or `no`, not `maybe`
",
    );
}

#[test]
fn tasks_that_do_not_fit_together_are_found_in_the_same_pass() {
    check(
        "\
version: 0.2
phases:
  build:
    comands: [a]
batch:
  build-graph:
    - identifier: a
      depend-on: [c]
    - {identifier: bild, depend-on: [a]}
    - {identifier: c, depend-on: [bild, biuld]}
    - {identifier: self, depend-on: [self]}
    - {identifier: a}
    - {identifier: no name, depend-on: [a]}
    - {identifier: late, depend-on: [no name]}
",
        "\
error 3:3+5 phase `build` has no `commands`
    add `commands:` with a list, or take the phase out
warning 4:5+7 unknown key `comands` in a phase
    did you mean `commands`?
error 7:19+1 tasks depend on each other in a circle: a -> c -> bild -> a
    take one of these `depend-on` out
error 10:41+5 task `c` depends on `biuld`, which is not there
    did you mean `bild`?
error 11:20+4 tasks depend on each other in a circle: self -> self
    take one of these `depend-on` out
error 12:20+1 identifier `a` is there twice, first on line 7
    give each task a name of its own
error 13:20+7 `identifier` has to be at most 128 letters, digits, `_`, `-` or `.`
",
    );
}

#[test]
fn commands_that_are_no_texts_are_shown_in_quotes() {
    check_commands(
        "      - echo \"Target: x\"\n      - fine\n      - [ -z a ]\n      - echo it's: \"x\"\n",
        "\
error 5:9+0 command 1 of `phases.build.commands` is read as a mapping, because of the `: ` in it
    put it in quotes: `- 'echo \"Target: x\"'`
    CodeBuild: YAML_FILE_ERROR: Expected Commands[0] to be of string type: found subkeys instead at line 5, value of the key tag on line 4 might be empty
error 7:9+0 command 3 of `phases.build.commands` is read as a list, because of the `[` or `- ` it starts with
    put it in quotes: `- '[ -z a ]'`
error 8:9+0 command 4 of `phases.build.commands` is read as a mapping, because of the `: ` in it
    write `- |`, and on the next line, indented, `echo it's: \"x\"`
    CodeBuild: YAML_FILE_ERROR: Expected Commands[3] to be of string type: found subkeys instead at line 8, value of the key tag on line 7 might be empty
",
    );
    check_commands(
        "      a: b\n",
        "\
error 5:7+0 `phases.build.commands` has to be a list of commands, not a mapping
    write `- ` before each command
",
    );
    check_commands(
        "      make all\n",
        "\
warning 4:5+8 `phases.build.commands` should be a list; this is taken as one command
    write `- ` before each command
",
    );
}

#[test]
fn keys_on_the_wrong_level_are_sent_to_the_right_one() {
    check(
        "\
version: 0.2
APP: x
post_build:
  commands: [a]
build-matrix: {}
phases:
  pre-build:
    commands: [a]
  reports: {}
  build:
    commands: [a]
    files: [b]
    env: {}
env:
  TOKEN: x
  variable: {A: b}
batch:
  build-list:
    - identifier: a
      depend-on: [b]
",
        "\
warning 2:1+3 unknown key `APP` at the top level
    variables go deeper, under `env.variables`
warning 3:1+10 unknown key `post_build` at the top level, so its commands do not run
    `post_build` belongs deeper, at `phases.post_build`
warning 5:1+12 unknown key `build-matrix` at the top level
    `build-matrix` belongs deeper, at `batch.build-matrix`
error 7:3+9 unknown key `pre-build` in `phases`, so its commands do not run
    write it `pre_build`
error 9:3+7 unknown key `reports` in `phases`
    `reports` belongs at the top level: indent it like `version`
warning 12:5+5 unknown key `files` in a phase
    `files` belongs elsewhere, at `artifacts.files`
warning 13:5+3 unknown key `env` in a phase
    `env` belongs at the top level: indent it like `version`
warning 15:3+5 unknown key `TOKEN` in `env`
    variables go deeper, under `env.variables`
warning 16:3+8 unknown key `variable` in `env`
    did you mean `variables`?
warning 20:7+9 unknown key `depend-on` in a task of `build-list`
    `depend-on` belongs elsewhere, at `batch.build-graph.depend-on`
",
    );
}

#[test]
fn a_key_that_is_like_no_other_gets_the_choice() {
    check(
        "version: 0.2\nphases:\n  deploy:\n    commands: [a]\n  build:\n    commands: [a]\n",
        "\
error 3:3+6 unknown key `deploy` in `phases`, so its commands do not run
    known in `phases`: `install`, `pre_build`, `build`, `post_build`
",
    );
    check(
        "version: 0.2\nenvironment_variables:\n  plaintext: {A: b}\nphases:\n  build:\n    commands: [a]\n",
        "\
warning 2:1+21 unknown key `environment_variables` at the top level
    since version 0.2 it is called `env`, and what was `plaintext` in it `variables`
",
    );
}

#[test]
fn a_missing_space_after_a_colon_is_named() {
    check(
        "version: 0.2\nphases:\n  install:\n    runtime-versions:\n      python:3.8\n  post_build:\n    commands:.\nenv:\n  variables:\n    A:1\n",
        "\
error 5:7+10 `phases.install.runtime-versions` has to be a mapping, not a text
    write a space after the colon: `python: 3.8`
error 7:5+10 phase `post_build` has to be a mapping, not a text
    write a space after the colon: `commands: .`
error 10:5+3 `env.variables` has to be a mapping, not a text
    write a space after the colon: `A: 1`
",
    );
}

#[test]
fn keys_that_are_known_and_not_acted_on_say_what_happens_instead_and_once() {
    check(
        "\
version: 0.2
proxy:
  logs: yes
phases:
  build:
    commands: [a]
",
        "\
warning 2:1+5 `proxy` at the top level is not acted on: the farm uses no proxy
",
    );
}

#[test]
fn a_file_that_runs_nothing_is_refused() {
    let no_phases = "\
error 1:1+0 buildspec has no `phases`, so there is nothing to run
    add `phases:`, and under it `build:` with its `commands:`
";
    check("version: 0.2\n", no_phases);
    let no_phase = "\
error 2:7+0 `phases` has no phase, so there is nothing to run
    the phases are `install`, `pre_build`, `build` and `post_build`
";
    check("version: 0.2\nphases:\n", no_phase);
    check(
        "phases:\n  build:\n    commands: [a]\n",
        "error 1:1+0 buildspec has no `version`\n    add `version: 0.2` at the top\n    CodeBuild: YAML_FILE_ERROR: wrong number of container tags, expected 1\n",
    );
    check(
        "- a\n",
        "error 1:1+0 buildspec has to be a mapping, not a list\n    start with `version: 0.2` and `phases:`\n",
    );
    check(
        "# only\n",
        "error 1:1+0 buildspec has nothing but comments\n    start with `version: 0.2` and `phases:`\n",
    );
}

#[test]
fn names_and_values_that_no_environment_can_have_are_refused() {
    let variables = |lines: &str| {
        format!(
            "{}env:\n  variables:\n{lines}",
            with_commands("      - a\n")
        )
    };
    check(
        &variables("    A=B: c\n    CODEBUILD_X: y\n    N: \"a\\0b\"\n    M: {a: b}\n"),
        "\
error 8:5+3 `A=B` cannot be the name of a variable
warning 9:5+11 variable `CODEBUILD_X` has a name that is reserved: CODEBUILD_ is for what the build sets
error 10:8+6 variable `N` has a NUL character, which no program can be given
error 11:8+0 variable `M` has to be a text, not a mapping
",
    );
    let long = "x".repeat(128 * 1024);
    check(
        &variables(&format!("    LONG: {long}\n")),
        "error 8:5+4 variable `LONG` has 131072 bytes, less than 131072 are possible\n",
    );
}

#[test]
fn batches_without_tasks_or_with_unnamed_ones_are_refused() {
    let batch = |lines: &str| format!("{}batch:\n{lines}", with_commands("      - a\n"));
    check(
        &batch("  fast-fail: true\n"),
        "error 7:3+0 `batch` has no `build-list`, `build-graph`, `build-matrix` or `build-fanout`\n",
    );
    check(
        &batch("  build-list: []\n"),
        "\
error 7:15+0 `batch.build-list` has to be a list of tasks, not an empty one
    write `- identifier: NAME` for each task
",
    );
    check(
        &batch(
            "  build-list:\n    - env: {}\n    - identifier: 'a b'\n    - c\n  build-fanout: {}\n",
        ),
        "\
error 8:7+0 a batch task has no `identifier`
    add `identifier: NAME`
error 9:19+5 `identifier` has to be at most 128 letters, digits, `_`, `-` or `.`
error 10:7+1 a batch task has to be a mapping, not a text
error 11:3+12 `batch` has both `build-list` and `build-fanout`
    take one of them out
",
    );
}

#[test]
fn duplicate_keys_tags_and_second_documents_are_reported() {
    check(
        &(with_commands("      - a\n      - ! grep b\n")
            + "phases:\n  build:\n    commands: [c]\n---\na: b\n"),
        "\
warning 6:9+8 what starts with `!` is a tag in YAML, and no part of the text
    put the whole text in quotes if it is meant to be there
warning 7:1+6 key `phases` is there twice; this one counts, the one on line 2 does not
    put both together, or take one out
warning 11:1+0 everything from here on is a second document and does not count
    take the `---` above it out
",
    );
}

#[test]
fn a_pattern_after_retry_that_is_none_is_refused_with_what_is_wrong() {
    check(
        "version: 0.2\nphases:\n  build:\n    on-failure: RETRY-3-exit (\n    commands: [a]\n",
        "\
error 4:17+14 `phases.build.on-failure`: `exit (` is no regular expression: unclosed group
    what follows `RETRY-` is looked for in the message of the failure, like `RETRY-2-exit status (5|6)`
",
    );
}

#[test]
fn identifiers_of_secondary_artifacts_are_words() {
    check(
        &(with_commands("      - a\n")
            + "artifacts:\n  files: [a]\n  secondary-artifacts:\n    ../up: {files: [a]}\n    one: {files: [a]}\n"),
        "error 9:5+5 artifact `../up`: an identifier has at most 128 letters, digits, `_` or `-`\n",
    );
}
