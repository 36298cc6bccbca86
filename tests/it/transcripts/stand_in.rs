//! A script that takes the place of a program: it tells on standard error what it was called with, and
//! does what the transcript says.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::expected::{Answer, Transcript};

/// Where stand-ins are, below the source directory.
pub(super) const DIRECTORY: &str = ".stand-ins";

/// What a line of a log begins with that tells of a call; the rest is in hexadecimal, fields end with a
/// zero byte.
pub(super) const SIGN: &str = "stand-in:";

/// Tells of the call. Standard error is a program's own even where its output is captured or piped.
const RECORD: &str = r#"#!/bin/sh
tools=/usr/bin:/bin
case $0 in
/*) name=${0##*/} ;;
*) name=$0 ;;
esac
call="$name${1+ $*}"
input=
# READS
record() {
    printf 'd%s\0s%s\0a%s\0' "$(PATH=$tools pwd -P)" "$CODEBUILD_SRC_DIR" "$name"
    for argument do printf 'a%s\0' "$argument"; done
    printf 'i%s\0' "${input%x}"
    # VARIABLES
}
hex=$(record "$@" | PATH=$tools od -An -v -tx1 | PATH=$tools tr -d ' \n')
printf '\nstand-in:%s\n' "$hex" >&2
"#;

/// A word that a shell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A pattern of `case` for what begins with `text`.
fn beginning(text: &str) -> String {
    format!("{}*", quoted(text))
}

/// The script of all stand-ins of a transcript.
fn script(transcript: &Transcript) -> String {
    let reads: Vec<_> = transcript
        .reads_stdin
        .iter()
        .map(|call| beginning(call))
        .collect();
    let reads = match &reads[..] {
        [] => String::new(),
        reads => format!(
            "case $call in {}) input=$(PATH=$tools cat; printf x) ;; esac",
            reads.join(" | ")
        ),
    };
    let calls = transcript.call.iter();
    let names: BTreeSet<_> = calls.flat_map(|call| call.env.keys()).collect();
    let variables: String = names
        .into_iter()
        .map(|name| {
            format!("[ -z \"${{{name}+set}}\" ] || printf 'v%s\\0' \"{name}=${name}\"\n    ")
        })
        .collect();
    let mut script = RECORD
        .replace("# READS\n", &format!("{reads}\n"))
        .replace("# VARIABLES\n", &format!("{variables}:\n"));
    script.push_str("case $call in\n");
    for answer in &transcript.answer {
        script.push_str(&branch(answer));
    }
    script.push_str("esac\n");
    script
}

/// What a stand-in does for an answer.
fn branch(answer: &Answer) -> String {
    let mut branch = format!("{})\n", beginning(&answer.call));
    let mut line = |text: String| {
        branch.push_str("    ");
        branch.push_str(&text);
        branch.push('\n');
    };
    let make = |path: &str| {
        let parent = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
        let parent = parent.to_str().filter(|parent| !parent.is_empty());
        format!("PATH=$tools mkdir -p {}", quoted(parent.unwrap_or(".")))
    };
    for (path, text) in &answer.writes {
        line(make(path));
        line(format!("printf %s {} >{}", quoted(text), quoted(path)));
    }
    for path in &answer.makes_stand_ins {
        line(make(path));
        line(format!("PATH=$tools cp \"$0\" {}", quoted(path)));
    }
    line(format!("printf %s {}", quoted(&answer.stdout)));
    line(format!("exit {}", answer.exit));
    let _infallible = writeln!(branch, "    ;;");
    branch
}

/// Writes the transcript's stand-ins into a source tree.
pub(super) fn write(transcript: &Transcript, source: &Path) {
    let script = script(transcript);
    let put = |path: PathBuf, mode: u32| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in &transcript.stand_ins {
        put(source.join(DIRECTORY).join(name), 0o755);
    }
    for (path, mode) in &transcript.source_stand_ins {
        put(source.join(path), u32::from_str_radix(mode, 8).unwrap());
    }
}
