//! What `tests/transcripts` says: one file for each buildspec.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

/// What one buildspec is expected to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transcript {
    /// The buildspec's name in the corpus.
    pub(super) file: String,
    /// Of its bytes, in hexadecimal.
    pub(super) sha256: String,
    /// The programs on the `PATH` that record what they are called with.
    pub(super) stand_ins: Vec<String>,
    /// What `/bin/sh` must be for this to hold; `None`: any.
    pub(super) sh: Option<String>,
    /// Whether the source is a checkout of git with one commit.
    #[serde(default)]
    pub(super) git: bool,
    /// The beginnings of the calls that read their standard input.
    #[serde(default)]
    pub(super) reads_stdin: Vec<String>,
    /// The paths of the artifacts, sorted; `None`: not looked at.
    pub(super) artifacts: Option<Vec<String>>,
    /// The phases from `DOWNLOAD_SOURCE` to `FINALIZING` that the build has.
    pub(super) phases: Vec<PhaseEnd>,
    /// The variables that are given when the build starts.
    #[serde(default)]
    pub(super) variables: BTreeMap<String, String>,
    /// What `runtime-versions` of the file names, and the environment has to offer.
    #[serde(default)]
    pub(super) runtimes: BTreeMap<String, String>,
    /// The exported variables, as the build shows them.
    #[serde(default)]
    pub(super) exported: BTreeMap<String, String>,
    /// The files of the source, by path.
    #[serde(default)]
    pub(super) source: BTreeMap<String, String>,
    /// The programs of the source that record, by path, with their modes in octal.
    #[serde(default)]
    pub(super) source_stand_ins: BTreeMap<String, String>,
    /// What stand-ins do; the first whose call begins so.
    #[serde(default)]
    pub(super) answer: Vec<Answer>,
    /// The calls, in order.
    #[serde(default)]
    pub(super) call: Vec<Call>,
}

/// How a phase ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct PhaseEnd {
    pub(super) phase: String,
    pub(super) status: String,
    /// The status code of its context.
    #[serde(default)]
    pub(super) code: String,
    /// The message of its context.
    #[serde(default)]
    pub(super) message: String,
}

/// What a stand-in does beside recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// How the call begins: name and arguments, with blanks between.
    pub(super) call: String,
    #[serde(default)]
    pub(super) stdout: String,
    #[serde(default)]
    pub(super) exit: u8,
    /// Files that it writes, by path from where it runs.
    #[serde(default)]
    pub(super) writes: BTreeMap<String, String>,
    /// Stand-ins that it makes, by path from where it runs.
    #[serde(default)]
    pub(super) makes_stand_ins: Vec<String>,
}

/// A call of a stand-in. Texts may hold `{SRC}`, `{COMMIT}` and `{COMMIT:N}` for its first N characters, and
/// `{*}` for anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) phase: String,
    pub(super) argv: Vec<String>,
    /// Where it runs, from the source directory.
    #[serde(default = "here")]
    pub(super) cwd: String,
    /// The neighbours with the same number run at the same time, in any order.
    pub(super) pipe: Option<u32>,
    /// Whether it may come at any place of its phase.
    #[serde(default)]
    pub(super) background: bool,
    /// How often it comes.
    #[serde(default = "once")]
    pub(super) repeat: usize,
    /// What it reads; `None`: not looked at.
    pub(super) stdin: Option<String>,
    /// Variables that it sees; `{UNSET}` for one that it does not.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
}

fn here() -> String {
    ".".to_owned()
}

const fn once() -> usize {
    1
}

/// All transcripts, sorted by name.
pub(super) fn transcripts() -> Vec<Transcript> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.into_iter().map(read).collect()
}
