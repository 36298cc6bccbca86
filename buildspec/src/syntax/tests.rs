//! Each frequent way to write what is no YAML, and the repair that is named.

use crate::{diagnostic::Severity, parse};

/// A file with `lines` in place of `@` has one error, at `place` (line:column) and with these words.
#[track_caller]
fn check(file: &str, lines: &str, expected: (&str, &str, &str)) {
    let text = file.replace('@', lines);
    let parsed = parse(&text);
    assert_eq!(parsed.diagnostics.len(), 1, "{:#?}", parsed.diagnostics);
    let found = &parsed.diagnostics[0];
    let place = format!("{}:{}", found.place.line, found.place.column);
    let hint = found.hint.as_deref().unwrap_or_default();
    assert_eq!(
        (place.as_str(), found.message.as_str(), hint),
        expected,
        "{text}"
    );
    assert_eq!(found.severity, Severity::Error);
}

/// The lines stand among commands, the first of them on line 6.
const COMMANDS: &str = "version: 0.2\nphases:\n  build:\n    commands:\n      - a\n@\n      - z\n";

#[test]
fn a_value_that_starts_with_a_sign_of_yaml_is_shown_in_quotes() {
    let alias = "a value that starts with `*` is an alias in YAML";
    check(
        COMMANDS,
        "      - **/*",
        ("6:9", alias, "put it in quotes: `- '**/*'`"),
    );
    check(
        COMMANDS,
        "      - [ -s \"$X\" ] && \\. \"$X\"",
        (
            "6:9",
            "a value that starts with `[` is a list in YAML, and nothing can follow its `]`",
            "put it in quotes: `- '[ -s \"$X\" ] && \\. \"$X\"'`",
        ),
    );
    check(
        COMMANDS,
        "      - {{x}} y",
        (
            "6:9",
            "a value that starts with `{` is a mapping in YAML, and nothing can follow its `}`",
            "put it in quotes: `- '{{x}} y'`",
        ),
    );
    check(
        COMMANDS,
        "      - `date`",
        (
            "6:9",
            "no value in YAML can start with a backtick",
            "put it in quotes: `- '`date`'`",
        ),
    );
    check(
        COMMANDS,
        "      - %x",
        (
            "6:9",
            "no value in YAML can start with `%`",
            "put it in quotes: `- '%x'`",
        ),
    );
    check(
        COMMANDS,
        "      - | echo",
        (
            "6:9",
            "`|` starts a text on the next lines, and nothing can follow it on its own",
            "write the text below it, indented; or put the whole value in quotes",
        ),
    );
}

#[test]
fn quotes_that_do_not_fit_are_named() {
    let follow = "a value that starts with a quote ends with it, and nothing can follow";
    check(
        COMMANDS,
        "      - \"$X\"/bin y",
        ("6:9", follow, "put it in quotes: `- '\"$X\"/bin y'`"),
    );
    check(
        COMMANDS,
        "      - 'it's'",
        ("6:9", follow, "put it in quotes: `- \"it's\"`"),
    );
    check(
        COMMANDS,
        "      - \".\\..\\x\\*\"",
        (
            "6:9",
            "`\\.` is no escape that YAML knows; in double quotes a backslash starts one",
            "put it in quotes: `- '.\\..\\x\\*'`",
        ),
    );
    check(
        COMMANDS,
        "      - \"open",
        (
            "6:9",
            "the quote that starts here is not closed",
            "close it, or leave both quotes out",
        ),
    );
}

#[test]
fn colons_and_spaces_are_named() {
    let colon = "the `: ` in this value makes YAML read it as a key and its value";
    check(
        COMMANDS,
        "      - c: d: e",
        ("6:12", colon, "put it in quotes: `- c: 'd: e'`"),
    );
    let space = "there is no space after the colon, so this is a text and no key";
    let env = "version: 0.2\nenv:\n  variables:\n@\nphases:\n  build:\n    commands:\n      - a\n";
    check(
        env,
        "    A:1\n    B: 2",
        ("4:5", space, "write a space after the colon: `A: 1`"),
    );
    check(
        env,
        "    B: 2\n    A:1",
        ("5:5", space, "write a space after the colon: `A: 1`"),
    );
    let list = "a list cannot start on the line of its key";
    let below = "write the `- ` on a line of its own below, indented";
    check(COMMANDS, "    finally: - b", ("6:14", list, below));
}

#[test]
fn lines_in_the_wrong_column_are_named() {
    let fits = "what belongs together starts in the same column; what belongs to a key above starts further right than the key";
    let none = "the indentation of this line fits none of the lines above it";
    check(COMMANDS, "     - b", ("6:6", none, fits));
    let among = "this line stands among list items and does not start with `- `";
    let artifacts = "version: 0.2\nartifacts:\n  files:\n    - a\n@\n";
    check(artifacts, "    discard-paths: yes", ("5:5", among, fits));
    let tab = "this line is indented with a tab, and YAML takes only spaces";
    check(
        COMMANDS,
        "\t- b",
        ("6:1", tab, "put spaces in place of the tab"),
    );
    let deep = "this line is indented deeper than `version` above it, which has its value already";
    check(
        "version: 0.2\n@\n",
        "  phases:",
        ("2:3", deep, "do not indent it, like the line above"),
    );
    let stray = "this line is neither a list item nor `key: value`";
    let start = "start it with `- ` if it is a command of its own; if it goes on with the text above, indent it like that";
    check(
        COMMANDS,
        "      - |\n        x\n      done",
        ("8:7", stray, start),
    );
    check(
        COMMANDS,
        "      - 'b'\n      Python 2",
        ("7:7", stray, start),
    );
}

#[test]
fn a_quoted_text_that_goes_on_too_far_left_is_named() {
    let message = "the quoted text that starts here goes on in lines that are indented too little";
    let hint = "indent them further than the line with the quote, or close it where it should end";
    check(COMMANDS, "      - 'a\n b'", ("6:9", message, hint));
}

#[test]
fn brackets_that_are_not_closed_are_named() {
    let list = "a list in `[ ]` before this is not closed, or has no comma between two values";
    let hint = "add the `]` or the comma; a command that starts with a bracket has to be in quotes";
    check(
        "version: 0.2\nphases:\n  build:\n    commands: [a, b\n@",
        "",
        ("5:1", list, hint),
    );
}

#[test]
fn what_nobody_thought_of_gets_the_words_of_the_parser() {
    let parsed = parse("#!/bin/sh\nset -e\necho foo: bar\n");
    let found = &parsed.diagnostics[0];
    assert_eq!(found.place.line, 3);
    assert!(
        found.message.starts_with("this is no YAML: "),
        "{}",
        found.message
    );
    assert_eq!(
        found.hint.as_deref(),
        Some("a text with `: ` in it has to be in quotes")
    );
}
