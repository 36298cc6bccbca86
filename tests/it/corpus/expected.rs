//! The table of what is expected: `tests/corpus/expected.toml`. What its keys mean is in the README there.

use std::collections::BTreeMap;

use serde::Deserialize;

const TEXT: &str = include_str!("../../corpus/expected.toml");

/// What is expected, by file name.
pub(super) type Table = BTreeMap<String, Expected>;

/// The verdict on a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is a buildspec.
    Accepted,
    /// It is none.
    Refused,
}

/// Why a file is refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reason {
    /// It is not YAML.
    Yaml,
    /// A command is a mapping.
    Command,
    /// There is no such phase.
    Phase,
    /// A required key is missing.
    Missing,
    /// A value has the wrong shape.
    Type,
    /// A value is not among the allowed ones.
    Value,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) digest: String,
    pub(super) verdict: Verdict,

    // Of a refused file.
    pub(super) reason: Option<Reason>,
    pub(super) evidence: Option<String>,
    #[serde(default)]
    pub(super) line: Vec<usize>,
    pub(super) column: Option<usize>,
    pub(super) key: Option<String>,

    // Of an accepted file.
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) commands: BTreeMap<String, usize>,
    #[serde(default)]
    pub(super) finally: BTreeMap<String, usize>,
    #[serde(default)]
    pub(super) on_failure: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) runtimes: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) variables: Vec<String>,
    #[serde(default)]
    pub(super) parameter_store: Vec<String>,
    #[serde(default)]
    pub(super) secrets_manager: Vec<String>,
    #[serde(default)]
    pub(super) exported: Vec<String>,
    pub(super) shell: Option<String>,
    pub(super) artifacts: Option<usize>,
    #[serde(default)]
    pub(super) secondary: Vec<String>,
    pub(super) cache_paths: Option<usize>,
    #[serde(default)]
    pub(super) reports: Vec<String>,
    pub(super) batch: Option<Batch>,
    #[serde(default)]
    pub(super) warnings: Vec<Warning>,
    #[serde(default)]
    pub(super) may_warn: Vec<usize>,
}

/// The kind of a batch, and how many builds it makes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) kind: String,
    pub(super) tasks: usize,
}

/// What has to be warned about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Warning {
    pub(super) line: usize,
    /// A word that the warning has.
    pub(super) key: String,
}

impl Expected {
    /// Whether the file is no buildspec.
    pub(super) fn is_refused(&self) -> bool {
        self.verdict == Verdict::Refused
    }
}

/// The whole table.
pub(super) fn table() -> Table {
    toml::from_str(TEXT).expect("the table is TOML of the documented keys")
}

#[test]
fn the_table_says_where_and_why_a_file_is_refused_and_what_an_accepted_one_has() {
    for (name, row) in table() {
        let why = row.reason.is_some() && row.key.is_some() && !row.line.is_empty();
        assert_eq!(row.is_refused(), why, "{name}: why, if it is refused");
        let sure = row.evidence.as_deref();
        assert_eq!(row.is_refused(), sure.is_some(), "{name}: how sure that is");
        assert!(
            sure.is_none_or(|tag| ["D", "O", "I"].contains(&tag)),
            "{name}"
        );
        assert_eq!(row.is_refused(), row.version.is_none(), "{name}: version");
        let runs = !row.commands.is_empty() || row.batch.is_some();
        assert_eq!(row.is_refused(), !runs, "{name}: what it runs");
    }
}
