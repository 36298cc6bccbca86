//! What a buildspec may say.

use buildspec::{BuildSpec, Severity, parse};

/// The buildspec of a text that has no error.
#[track_caller]
fn spec(text: &str) -> BuildSpec {
    let parsed = parse(text);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// The messages of a severity about a text.
fn said(text: &str, severity: Severity) -> Vec<String> {
    let diagnostics = parse(text).diagnostics.into_iter();
    diagnostics
        .filter(|diagnostic| diagnostic.severity == severity)
        .map(|diagnostic| diagnostic.message)
        .collect()
}

/// Checks that exactly one thing is said about `text`, and that it names `what`.
#[track_caller]
fn check(text: &str, severity: Severity, what: &str) {
    let said = said(text, severity);
    assert!(
        matches!(&said[..], [one] if one.contains(what)),
        "of `{what}`: {said:?}"
    );
}

/// A file with a command in `build`, and these lines at its end.
fn with(lines: &str) -> String {
    format!("version: 0.2\nphases:\n  build:\n    commands: [a]\n{lines}")
}

#[test]
fn steps_is_no_known_key() {
    check(&with("steps: [b]\n"), Severity::Warning, "`steps`");
}

#[test]
fn a_phase_has_no_env_of_its_own() {
    check(
        &with("    env: {variables: {A: b}}\n"),
        Severity::Warning,
        "`env`",
    );
    let spec = spec(&with("    env: {variables: {A: b}}\n"));
    assert!(spec.variables.is_empty());
}

#[test]
fn only_four_phase_names_exist() {
    for name in ["install", "pre_build", "build", "post_build"] {
        let text = format!("version: 0.2\nphases:\n  {name}:\n    commands: [a]\n");
        assert_eq!(parse(&text).diagnostics, [], "{name}");
    }
    for name in ["deploy", "test", "pre-build", "upload_artifacts"] {
        let text = with(&format!("  {name}:\n    commands: [b]\n"));
        check(&text, Severity::Error, &format!("`{name}`"));
    }
}

#[test]
fn the_order_in_the_file_does_not_change_the_order_of_phases() {
    let phases = ["install", "pre_build", "build", "post_build"];
    let file = |order: &[usize]| {
        let mut text = "version: 0.2\nphases:\n".to_owned();
        for &at in order {
            text += &format!("  {0}:\n    commands: [{0}]\n", phases[at]);
        }
        spec(&text)
    };
    let in_order = file(&[0, 1, 2, 3]);
    for order in [[3, 2, 1, 0], [2, 0, 3, 1]] {
        assert_eq!(file(&order), in_order);
    }
}

#[test]
fn the_type_of_artifacts_is_taken_and_has_no_effect() {
    let without = with("artifacts:\n  files: [b]\n");
    let with = with("artifacts:\n  type: zip\n  files: [b]\n");
    assert_eq!(spec(&with), spec(&without));
}

#[test]
fn names_that_start_with_codebuild_are_reserved() {
    check(
        &with("env:\n  variables: {CODEBUILD_X: b}\n"),
        Severity::Warning,
        "`CODEBUILD_X`",
    );
}

#[test]
fn a_command_that_is_a_mapping_is_refused_with_its_index() {
    let text = "version: 0.2\nphases:\n  build:\n    commands:\n      - a\n      - echo b: c\n";
    let diagnostics = parse(text).diagnostics;
    let [one] = &diagnostics[..] else {
        panic!("{diagnostics:?}")
    };
    assert_eq!((one.severity, one.place.line), (Severity::Error, 6));
    assert!(one.message.contains("command 2 of"), "{}", one.message);
}

#[test]
fn a_batch_has_one_kind() {
    let list = "  build-list:\n    - identifier: a\n";
    let graph = "  build-graph:\n    - identifier: b\n";
    assert!(spec(&with(&format!("batch:\n{list}"))).batch.is_some());
    assert!(!said(&with(&format!("batch:\n{list}{graph}")), Severity::Error).is_empty());
    assert!(!said(&with("batch:\n  fast-fail: yes\n"), Severity::Error).is_empty());
}

#[test]
fn env_shell_takes_four_tags() {
    let shell = |name: &str| format!("env:\n  shell: {name}\n");
    for name in ["bash", "/bin/sh"] {
        assert_eq!(parse(&with(&shell(name))).diagnostics, [], "{name}");
    }
    for name in ["powershell.exe", "cmd.exe"] {
        // No worker runs Windows, but the tag is one.
        check(&with(&shell(name)), Severity::Warning, "a shell of Windows");
        assert!(spec(&with(&shell(name))).windows_shell.is_some());
    }
    check(&with(&shell("zsh")), Severity::Error, "`env.shell`");
}

#[test]
fn only_install_may_go_without_commands() {
    let text = |name: &str| format!("version: 0.2\nphases:\n  {name}:\n    finally: [a]\n");
    assert_eq!(parse(&text("install")).diagnostics, []);
    for name in ["pre_build", "build", "post_build"] {
        check(&text(name), Severity::Error, "has no `commands`");
    }
}
