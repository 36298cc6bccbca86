//! Nothing that is given to the parser makes it panic, hang or take much more than the text.

use super::*;
use crate::{PlanRequest, diagnostic::render, plan};

/// Files with everything in them that the parser looks at.
const SAMPLES: &[&str] = &[
    "version: 0.2\nenv:\n  shell: bash\n  variables: &v {A: 1, B: ~}\n  parameter-store:\n    C: /x\nphases:\n  install:\n    runtime-versions: {python: 3.10}\n    commands:\n      - echo \"a\\tb\" 'c'\n  build:\n    on-failure: ABORT\n    commands:\n      - |\n        a\n          b\n      - >-\n        c\n    finally: [d, \"e\"]\nartifacts:\n  files: '**/*'\n  discard-paths: yes\ncache:\n  paths: [a]\n  key: k\nbatch:\n  fast-fail: no\n  build-graph:\n    - identifier: a\n      env: {variables: {<<: *v, X: y}}\n    - identifier: b\n      depend-on: [a]\n",
    "version: 0.2\nrun-as: u\nenv:\n  secrets-manager: {S: 'a:b:c', T: 'arn:aws:secretsmanager:r:1:secret:n:k'}\n  exported-variables: [A, AWS_B]\n  git-credential-helper: yes\nproxy: {logs: no}\nphases:\n  install: {runtime-versions: {java: corretto17}, run-as: v}\n  build: {on-failure: RETRY-3-.*x, commands: [a]}\nreports:\n  g:\n    files: '**/*.xml'\n    file-format: JACOCOXML\nartifacts:\n  files: [a]\n  secondary-artifacts: {s: {files: [b], enable-symlinks: yes}}\ncache: {key: k, fallback-keys: [l], action: save, paths: [p]}\nbatch:\n  build-matrix:\n    static: {ignore-failure: yes, env: {type: LINUX_CONTAINER}}\n    dynamic:\n      buildspec: [a, b]\n      env: {image: [x, y], variables: {V: [1, 2, 3]}}\n",
    "version: 0.2\nphases: {build: {commands: [codebuild-tests-run]}}\nbatch:\n  build-fanout:\n    parallelism: 4\n",
    "version: 0.1\r\nenvironment_variables:\r\n  plaintext:\r\n    K: v\r\nphases:\r\n  build:\r\n    commands:\r\n    - a\r\n    - \"b\"\r\n",
    "{\"version\": 0.2, \"phases\": {\"build\": {\"commands\": [\"a: b\", \"\\u00e9\"]}}}",
];

/// Pieces that mean something to YAML or to the language.
const PIECES: &[&str] = &[
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!t ",
    "| ",
    ">",
    "#",
    "%",
    "`",
    "---\n",
    "...\n",
    "? ",
    "<<: ",
    "\\",
    "\u{feff}",
    "é",
    "\u{1b}",
    "\0",
    "\r",
    "version",
    "commands:",
    "depend-on: [b]",
    "~",
    ",",
];

/// A generator of numbers that is the same on every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

fn mutate(numbers: &mut Numbers, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(chars.len() + 1);
        let end = (at + numbers.below(12)).min(chars.len());
        match numbers.below(4) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, PIECES[numbers.below(PIECES.len())].chars())),
            2 => {
                let copied = chars[at..end].to_vec();
                let to = numbers.below(chars.len() + 1);
                drop(chars.splice(to..to, copied));
            }
            _ => chars.truncate(end.max(20)),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn no_mutation_of_a_file_makes_the_parser_panic_or_contradict_itself() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..6_000 {
        let sample = SAMPLES[round % SAMPLES.len()];
        let text = mutate(&mut numbers, sample);
        let parsed = parse(&text);
        let errors = parsed
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .count();
        assert_eq!(parsed.spec.is_some(), errors == 0, "{text:?}");
        for diagnostic in &parsed.diagnostics {
            let shown = render(&text, "x", diagnostic);
            let is_clean = |c: char| c == '\n' || !c.is_control();
            assert!(shown.chars().all(is_clean), "{shown:?} about {text:?}");
            assert!(
                diagnostic.place.line >= 1 && diagnostic.place.column >= 1,
                "{text:?}"
            );
        }
        let Some(spec) = parsed.spec else { continue };
        for batch in [false, true] {
            let request = PlanRequest {
                batch,
                ..PlanRequest::default()
            };
            match plan(&spec, &request) {
                Ok(graph) => assert!(graph.jobs.len() >= 6),
                Err(error) => assert!(!error.diagnostics().is_empty()),
            }
        }
    }
}

#[test]
fn files_made_to_hurt_are_answered() {
    let many = |piece: &str| piece.repeat(1024 * 1024 / piece.len());
    let bomb = (1..12).fold(
        "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(),
        |text, level| {
            let aliases = format!("*a{},", level - 1).repeat(8);
            text + &format!("a{level}: &a{level} [{aliases}]\n")
        },
    );
    let mut texts: Vec<String> = [
        "[", "{", "- ", "? ", "a: ", "a: [", "\t", "'", "&a ", "*a ", "!t ", "a\n", ",", "\n",
        "k: v\n",
    ]
    .iter()
    .map(|piece| many(piece))
    .collect();
    texts.push(bomb);
    texts.push("a: &a\n  b: *a\n".to_owned());
    texts.push(many("x").replace("xx", "[,") + "\n");
    for text in texts {
        let parsed = parse(&text);
        assert_eq!(parsed.spec, None);
        assert!(
            parsed.diagnostics.len() < 300,
            "{} remarks",
            parsed.diagnostics.len()
        );
    }
}

#[test]
fn what_is_no_text_is_refused_by_name() {
    let check = |bytes: &[u8], expected: &str| {
        let error = input::text_of(bytes).unwrap_err();
        assert_eq!(error.to_string(), expected);
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert_eq!(parse(text), Parsed::failed(error.diagnostic()));
        }
    };
    check(b"", "buildspec is empty");
    check(b" \n\t\r\n", "buildspec is empty");
    check("\u{feff}\n".as_bytes(), "buildspec is empty");
    check(
        b"version: \xff",
        "buildspec is no text in UTF-8: byte 9 cannot be in one",
    );
    check(
        b"\x7fELF\x02\0\0",
        "buildspec is no text in UTF-8: byte 5 cannot be in one",
    );
    check(
        b"v\0e\0r\0",
        "buildspec is no text in UTF-8: byte 1 cannot be in one",
    );
    check(
        &vec![b'#'; 1024 * 1024 + 1],
        "buildspec has 1048577 bytes, at most 1048576 are allowed",
    );
}
