//! Tests of masking: what is cut into pieces gives the same as the whole, and nothing of a secret is left.

use proptest::prelude::*;

use super::*;
use crate::secrets::forms::{plain_forms, wrapped_forms};

fn patterns(secrets: &[&[u8]]) -> Arc<Patterns> {
    let named = secrets.iter().map(|&secret| ("TOKEN", secret));
    Arc::new(Patterns::new(named, FORM_BYTES_MIN).unwrap())
}

#[track_caller]
fn check(secret: &str, text: &str, expected: &str) {
    let patterns = patterns(&[secret.as_bytes()]);
    let masked = patterns.masked(text.as_bytes());
    assert_eq!(String::from_utf8_lossy(&masked), expected);
    let is_found = patterns.find(text.as_bytes()).is_some();
    assert_eq!(is_found, text != expected);
}

#[test]
fn each_form_is_replaced_and_what_is_around_it_stays() {
    check("hunter2", "token=hunter2;", "token=***;");
    check("hunter2", "hunter hunter", "hunter hunter");
    check("hunter2", "aHVudGVyMg==", "***==");
    check("hunter2", "+ echo hunter2", "+ echo ***");
    check("hunter2", "hunter2hunter2", "******");
    check("it's me", r"+ echo 'it'\''s me'", "+ echo '***'");
    check("a b&c", "?q=a%20b%26c&x", "?q=***&x");
    check("a\"bc", r#"{"t":"a\"bc"}"#, r#"{"t":"***"}"#);
    check("one two\nthree", "x three y", "x *** y");
    check("one two\nthree", r"+ x=$'one two\nthree'", "+ x=$'***'");
}

#[test]
fn base64_is_found_although_it_is_wrapped() {
    let secret = "a rather long secret that fills more than a line of base64 by far, so to speak";
    let encoded = "YSByYXRoZXIgbG9uZyBzZWNyZXQgdGhhdCBmaWxscyBtb3JlIHRoYW4gYSBsaW5lIG9mIGJhc2U2\n\
                   NCBieSBmYXIsIHNvIHRvIHNwZWFr\n";
    check(secret, encoded, "***\n");
    let narrow = encoded.replace('\n', "");
    let narrow: String = narrow
        .as_bytes()
        .chunks(7)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    check(secret, &narrow, "***\r\n");
}

#[test]
fn forms_that_lie_over_each_other_are_replaced_together() {
    let two = patterns(&[b"abcdef", b"defghi"]);
    assert_eq!(two.masked(b"xabcdefghiy"), b"x***y");
    let inner = patterns(&[b"cdef", b"abcdefgh"]);
    assert_eq!(inner.masked(b"abcdefgh abcdefg"), b"*** ab***g");
    let itself = patterns(&[b"aaaa"]);
    assert_eq!(itself.masked(&[b'a'; 1_000]), b"***");
}

/// What is shown of `text` before it is known what follows.
fn shown(patterns: &Arc<Patterns>, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Masker::new(Arc::clone(patterns)).push(text, &mut out);
    out
}

#[test]
fn little_is_held_back() {
    let patterns = patterns(&[b"hunter2"]);
    assert_eq!(
        shown(&patterns, b"a line of other text hunt"),
        b"a line of other text "
    );
    let mut itself = Masker::new(self::patterns(&[b"aaaa"]));
    let mut out = Vec::new();
    for _ in 0..1_000 {
        itself.push(&[b'a'; 100], &mut out);
        assert!(itself.held.len() < 8, "a run without an end takes no room");
    }
    itself.interrupt(&mut out);
    assert_eq!(out, MASK);
}

#[test]
fn a_line_is_shown_when_it_ends_whatever_base64_may_begin_with() {
    let patterns = patterns(&[b"hunter2", b"another rather long secret"]);
    for last in b' '..=b'~' {
        let line = [&b"a line that ends in "[..], &[last, b'\n']].concat();
        assert_eq!(shown(&patterns, &line), line);
    }
}

#[test]
fn ends_of_line_without_an_end_are_not_held() {
    let patterns = patterns(&[b"hunter2"]);
    for begin in ["a", "aHVud"] {
        let mut masker = Masker::new(Arc::clone(&patterns));
        let mut out = Vec::new();
        masker.push(begin.as_bytes(), &mut out);
        for _ in 0..1_000 {
            masker.push(b"\n", &mut out);
            assert!(masker.held.len() < 8);
        }
    }
}

#[test]
fn base64_that_begins_at_the_end_of_a_line_is_replaced_from_the_next_on() {
    let secret = "hunter2 and more of it";
    for before in 70..76 {
        let text = [&"x".repeat(before), secret].concat();
        let encoded = base64_wrapped(text.as_bytes());
        let masked = patterns(&[secret.as_bytes()]).masked(encoded.as_bytes());
        let (first, last) = encoded.split_once('\n').unwrap();
        let masked = String::from_utf8(masked).unwrap();
        assert!(
            !masked.contains(last.trim_end_matches(['=', '\n'])),
            "{masked}"
        );
        let kept = masked
            .chars()
            .zip(first.chars())
            .take_while(|(a, b)| a == b);
        let begins = (before * 8).div_ceil(6);
        assert!(kept.count() < begins + WRAPPED_CHARACTERS_MIN, "{masked}");
    }
}

/// What `base64` prints.
fn base64_wrapped(bytes: &[u8]) -> String {
    let forms = wrapped_forms(bytes, FORM_BYTES_MIN);
    let whole = forms.iter().max_by_key(|form| form.len()).unwrap();
    let lines = whole
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn neither_half_of_a_secret_is_shown_with_something_else_in_between() {
    let patterns = patterns(&[b"hunter2 of mine"]);
    for cut in INTERRUPTED_BYTES_MIN..15 {
        let mut masker = Masker::new(Arc::clone(&patterns));
        let mut out = Vec::new();
        masker.push(&b"hunter2 of mine"[..cut], &mut out);
        masker.interrupt(&mut out);
        assert_eq!(out, MASK);
        masker.push(&b"hunter2 of mine!"[cut..], &mut out);
        masker.interrupt(&mut out);
        assert_eq!(out, b"******!");
    }
}

#[test]
fn what_is_looked_for_is_not_shown() {
    let patterns = patterns(&[b"hunter2"]);
    let mut masker = Masker::new(Arc::clone(&patterns));
    masker.push(b"x", &mut Vec::new());
    assert!(!format!("{patterns:?}").contains("hunter2"));
}

/// Output with forms of a secret in it, and where to cut it.
fn cases() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<usize>)> {
    let secret = prop_oneof![
        "[a-z]{4,12}",
        "[ab]{4,8}",
        "[ -~]{4,20}",
        "[ -~\n]{6,60}",
        "[a-c/+=\"'$ ü]{4,9}",
    ];
    secret.prop_flat_map(|secret| {
        let secret = secret.into_bytes();
        let mut forms: Vec<Vec<u8>> = plain_forms(&secret, FORM_BYTES_MIN).into_iter().collect();
        forms.extend(wrapped_forms(&secret, FORM_BYTES_MIN));
        if forms.is_empty() {
            forms.push(Vec::new());
        }
        let part = prop_oneof![
            2 => "[a-z \n]{0,9}".prop_map(String::into_bytes),
            3 => prop::sample::select(forms.clone()),
            2 => (prop::sample::select(forms), 0_usize..9).prop_map(|(mut form, length)| {
                form.truncate(length);
                form
            }),
        ];
        let text = prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat());
        let cuts = prop::collection::vec(1_usize..9, 0..60);
        (Just(secret), text, cuts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn however_the_output_is_cut_the_same_is_replaced((secret, text, cuts) in cases()) {
        let patterns = patterns(&[&secret]);
        let whole = patterns.masked(&text);
        let mut masker = Masker::new(Arc::clone(&patterns));
        let mut out = Vec::new();
        let mut rest = &text[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            masker.push(piece, &mut out);
            rest = after;
        }
        masker.push(rest, &mut out);
        masker.finish(&mut out);
        prop_assert_eq!(out, whole);
    }

    #[test]
    fn nothing_of_a_secret_is_left_and_without_one_nothing_changes((secret, text, _) in cases()) {
        let patterns = patterns(&[&secret]);
        let masked = patterns.masked(&text);
        // What stands between two masks was never one with what follows.
        for between in masked.split(|&byte| byte == b'*') {
            prop_assert_eq!(patterns.find(between), None);
        }
        if patterns.find(&text).is_none() {
            prop_assert_eq!(masked, text);
        }
    }

    #[test]
    fn every_form_in_any_surroundings_is_replaced(
        secret in "[ -~]{4,20}",
        before in "[g-m]{0,5}",
        after in "[g-m]{0,5}",
    ) {
        let patterns = patterns(&[secret.as_bytes()]);
        for form in plain_forms(secret.as_bytes(), FORM_BYTES_MIN).into_iter().chain(wrapped_forms(secret.as_bytes(), FORM_BYTES_MIN)) {
            let text = [before.as_bytes(), &form, after.as_bytes()].concat();
            let masked = patterns.masked(&text);
            prop_assert!(masked.windows(3).any(|window| window == MASK));
            let is_left = masked.windows(form.len()).any(|window| window == form);
            prop_assert!(!is_left, "{} in {}", form.escape_ascii(), masked.escape_ascii());
        }
    }
}

/// What real tools print of the texts that they are given as arguments, each behind a word that says how. Python's
/// are many, and so in one text.
const TOOLS: [(&str, &[&str]); 8] = [
    (
        "bash",
        &[
            "-c",
            r#"printf '%q\n' "$@"; for one; do declare -p one; echo "${one@Q}"; done"#,
            "x",
        ],
    ),
    (
        "bash",
        &[
            "-c",
            r#"export LC_ALL=C.UTF-8; printf '%q\n' "$@"; set -x; true "$@" 2>&1"#,
            "x",
        ],
    ),
    (
        "bash",
        &[
            "-c",
            r#"exec 2>&1; set -x; true "$@"; for one; do other="a=$one"; [[ $one ]]; done"#,
            "x",
        ],
    ),
    (
        "sh",
        &[
            "-c",
            r#"exec 2>&1; set -x; true "$@"; for one; do other="a=$one"; done; export one; export -p"#,
            "x",
        ],
    ),
    (
        "sh",
        &[
            "-c",
            r#"for one; do for x in '' x xx; do printf '%s%sy' "$x" "$one" | base64; done; done"#,
            "x",
        ],
    ),
    (
        "sh",
        &[
            "-c",
            r#"for one; do printf '%s' "$one" | base64 -w 5; echo; done"#,
            "x",
        ],
    ),
    (
        "sh",
        &[
            "-c",
            r#"for one; do printf '%s' "$one" | od -An -v -tx1 | tr -d ' \n'; echo; done"#,
            "x",
        ],
    ),
    ("python3", &["-c", PYTHON]),
];

const PYTHON: &str = r#"
import sys, json, shlex, html, base64
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape, quoteattr
for one in sys.argv[1:]:
    both = json.dumps({"a": one})
    print(json.dumps(one), json.dumps(one, ensure_ascii=False), json.dumps(both), json.dumps(one).replace("/", "\\/"))
    print(repr(one), ascii(one), repr(one.encode()), repr([one]))
    print(quote(one), quote(one, safe=""), quote_plus(one), urlencode({"a": one}), quote(one, safe="~!*'();/?:@&=+$,#"))
    print(quote(one, safe="$&+,;="), quote(one, safe="*").replace("~", "%7E").replace("%20", "+"))
    print(shlex.quote(one), html.escape(one), html.escape(one, quote=False), escape(one), quoteattr(one))
    print(base64.b64encode(one.encode()), base64.urlsafe_b64encode(one.encode()).decode(), one.encode().hex().upper())
"#;

/// What each secret of the test below is made of, besides what has to be escaped: no tool changes it.
const PLAIN_PARTS: [&str; 3] = ["Zq7wR", "Kw9xV", "Jh3tB"];

#[test]
fn what_real_tools_make_of_a_secret_is_replaced() {
    let [a, b, c] = PLAIN_PARTS;
    let special: Vec<char> = (' '..='~')
        .filter(|one| !one.is_ascii_alphanumeric())
        .collect();
    let alone = special
        .iter()
        .map(|one| format!("{a}{one}{b}{one}{one}{c}"));
    let first = special.iter().map(|one| format!("{one}{a} {b}{one}"));
    let two = special
        .windows(2)
        .map(|two| format!("{a}{}{b}{}{c}", two[0], two[1]));
    let odd = [
        "\n",
        "\t",
        "ü",
        "'\"",
        "\"'\n",
        "\u{1f33e}",
        "%41",
        "&amp;",
        "\\n",
        "=~",
        ":~",
        "\u{1}",
        "''",
    ];
    let odd = odd.iter().map(|odd| format!("{a}{odd}{b}"));
    let secrets: Vec<_> = alone.chain(first).chain(two).chain(odd).collect();
    for (tool, arguments) in TOOLS {
        let mut command = std::process::Command::new(tool);
        let output = command.env_clear().args(arguments).args(&secrets).output();
        let Ok(output) = output else {
            eprintln!("{tool} is not here");
            continue;
        };
        assert!(output.status.success(), "{output:?}");
        let printed = output.stdout;
        assert!(2 * secrets.len() <= printed.len(), "{tool} {arguments:?}");
        let all: Vec<_> = secrets.iter().map(String::as_bytes).collect();
        let masked = patterns(&all).masked(&printed);
        let masked = String::from_utf8_lossy(&masked);
        for line in masked.lines() {
            let seen = PLAIN_PARTS.iter().find(|part| line.contains(**part));
            assert_eq!(seen, None, "{tool} {arguments:?}: {line}");
            // A run of letters and digits is what encoders make of it.
            let runs = line.split(|one: char| !one.is_ascii_alphanumeric());
            let longest = runs.max_by_key(|run| run.len()).unwrap_or_default();
            let is_known = longest.len() < 12;
            assert!(is_known, "{tool} {arguments:?}: {line}");
        }
    }
}
