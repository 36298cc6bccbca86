//! A report as the farm keeps it: which group it belongs to, which files it was made of, what they say.

use serde::{Deserialize, Serialize};

use crate::cases::TestReport;
use crate::coverage::{Count, CoverageReport};
use crate::format::{Format, Kind};

/// How long a kept report may be: 100,000 cases with long names, and all messages that are kept.
pub const PUBLISHED_BYTES_MAX: usize = 256 << 20;

/// The version of the bytes. Another one is refused.
const VERSION: u32 = 1;

/// What report files say.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Report {
    /// Of a format that says coverage.
    CodeCoverage(CoverageReport),
    /// Of a format that says tests.
    Test(TestReport),
}

/// How a report ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReportStatus {
    /// No case fails. Coverage always.
    Succeeded,
    /// A case fails.
    Failed,
    /// Files were not found or not read, or a shard is missing.
    Incomplete,
}

impl Report {
    /// Nothing yet, to take in files of a kind.
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::CodeCoverage => Self::CodeCoverage(CoverageReport::default()),
            Kind::Test => Self::Test(TestReport::default()),
        }
    }

    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::CodeCoverage(_) => Kind::CodeCoverage,
            Self::Test(_) => Kind::Test,
        }
    }

    /// Whether a case fails.
    pub fn has_failed(&self) -> bool {
        match self {
            Self::CodeCoverage(_) => false,
            Self::Test(report) => 0 < report.totals.failed + report.totals.errors,
        }
    }

    /// What files of one build say together; those of another kind than `kind` are left out.
    pub fn of_files(kind: Kind, mut reports: Vec<Self>) -> Self {
        reports.retain(|report| report.kind() == kind);
        // By halves, so that what was merged is not gone through again for each file.
        while 1 < reports.len() {
            let mut rest = reports.into_iter();
            let mut merged = Vec::new();
            while let Some(mut report) = rest.next() {
                if let Some(other) = rest.next() {
                    report.absorb_file(other);
                }
                merged.push(report);
            }
            reports = merged;
        }
        reports.pop().unwrap_or_else(|| Self::empty(kind))
    }

    /// What it says, on a line for people.
    pub fn summary(&self) -> String {
        match self {
            Self::Test(report) => report.totals.to_string(),
            Self::CodeCoverage(report) => {
                let share = |what: &str, count: &Count| match count.percentage() {
                    Some(percentage) => format!("{percentage:.1} % of {} {what}", count.total()),
                    None => format!("no {what}"),
                };
                let lines = share("lines", &report.lines);
                format!("{lines}, {}", share("branches", &report.branches))
            }
        }
    }

    /// Adds what another file of the same build says; one of the other kind is left out, and `false`.
    pub fn absorb_file(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Test(report), Self::Test(other)) => report.absorb_file(other),
            (Self::CodeCoverage(report), Self::CodeCoverage(other)) => report.absorb_file(other),
            _ => return false,
        }
        true
    }

    /// Adds what another shard of the same batch says; one of the other kind is left out, and `false`.
    pub fn absorb_shard(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Test(report), Self::Test(other)) => report.absorb_shard(other),
            (Self::CodeCoverage(report), Self::CodeCoverage(other)) => report.absorb_shard(other),
            _ => return false,
        }
        true
    }
}

/// A report with what it is a report of.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Published {
    version: u32,
    /// The group's name, such as `PROJECT-unit`.
    pub group: String,
    /// Of its files.
    pub format: Format,
    /// How it ended.
    pub status: ReportStatus,
    /// Whether nobody asked for it: its files were discovered.
    pub is_discovered: bool,
    /// The files that it was made of, relative to the source directory, in order.
    pub files: Vec<String>,
    /// What they say.
    pub report: Report,
}

impl Published {
    /// A report of a group, from files of a format, whose status follows from its cases.
    pub fn new(group: &str, format: Format, files: Vec<String>, report: Report) -> Self {
        let status = match report.has_failed() {
            true => ReportStatus::Failed,
            false => ReportStatus::Succeeded,
        };
        Self {
            version: VERSION,
            group: group.to_owned(),
            format,
            status,
            is_discovered: false,
            files,
            report,
        }
    }

    /// A report of a group whose files are not there.
    pub fn incomplete(group: &str, format: Format) -> Self {
        Self {
            status: ReportStatus::Incomplete,
            ..Self::new(group, format, Vec::new(), Report::empty(format.kind()))
        }
    }

    /// Adds what another unit of the same batch says of the same group.
    pub fn absorb_shard(&mut self, other: Self) {
        if !self.report.absorb_shard(other.report) {
            self.status = ReportStatus::Incomplete;
            return;
        }
        self.status = match (self.status, other.status) {
            (ReportStatus::Failed, _) | (_, ReportStatus::Failed) => ReportStatus::Failed,
            (ReportStatus::Incomplete, _) | (_, ReportStatus::Incomplete) => {
                ReportStatus::Incomplete
            }
            (ReportStatus::Succeeded, ReportStatus::Succeeded) => ReportStatus::Succeeded,
        };
        self.files.extend(other.files);
        self.files.sort();
        self.files.dedup();
    }

    /// The bytes that are kept: JSON, which people may read too.
    ///
    /// # Panics
    ///
    /// Never: all that it holds has a JSON form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names are texts and numbers are finite")
    }

    /// The report that bytes hold.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: somebody else wrote them. The caller says that the report cannot be shown.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if PUBLISHED_BYTES_MAX < bytes.len() {
            return Err(DecodeError::TooLong { bytes: bytes.len() });
        }
        let read: Self = serde_json::from_slice(bytes)?;
        if read.version != VERSION {
            return Err(DecodeError::Version {
                version: read.version,
            });
        }
        Ok(read)
    }
}

/// Why bytes are not a kept report.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not one, or damaged.
    #[error("failed to read a kept report")]
    NotOne(#[from] serde_json::Error),
    /// They are longer than any.
    #[error("a kept report has {bytes} bytes, at most {PUBLISHED_BYTES_MAX} are read")]
    TooLong {
        /// How long they are.
        bytes: usize,
    },
    /// A newer program wrote them. Update this one.
    #[error("a kept report is of version {version}, only {VERSION} is known")]
    Version {
        /// Theirs.
        version: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    const JUNIT: &[u8] =
        br#"<testsuite name="s" file="a.py"><testcase classname="c" name="n" time="1.5" line="3">
        <failure type="T" message="m"/></testcase></testsuite>"#;

    #[test]
    fn kept_bytes_are_golden() {
        let report = parse(Format::JunitXml, JUNIT).unwrap();
        let published =
            Published::new("p-unit", Format::JunitXml, vec!["a.xml".to_owned()], report);
        let totals = r#"{"tests":1,"succeeded":0,"failed":1,"errors":0,"skipped":0,"unknown":0,"nanoseconds":1500000000}"#;
        let expected = [
            r#"{"version":1,"group":"p-unit","format":"JUNITXML","status":"FAILED","is_discovered":false,"#,
            r#""files":["a.xml"],"report":{"kind":"TEST","totals":"#,
            totals,
            r#","suites":{"s":"#,
            totals,
            r#"},"cases":[{"suite":"s","prefix":"c","name":"n","status":"FAILED","nanoseconds":1500000000,"#,
            r#""type":"T","message":"m","place":{"file":"a.py","line":3}}],"truncated":false}}"#,
        ];
        let bytes = published.encode();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected.concat());
        assert_eq!(Published::decode(&bytes).unwrap(), published);
    }

    #[test]
    fn coverage_is_kept_with_its_lines() {
        let clover =
            br#"<coverage><project><file name="a.php"><line num="1" type="stmt" count="1"/>
            <line num="2" type="stmt" count="0"/><metrics statements="2" coveredstatements="1"
            conditionals="0" coveredconditionals="0"/></file></project></coverage>"#;
        let report = parse(Format::CloverXml, clover).unwrap();
        let published = Published::new("p-c", Format::CloverXml, Vec::new(), report);
        assert_eq!(published.status, ReportStatus::Succeeded);
        let bytes = published.encode();
        assert!(String::from_utf8_lossy(&bytes).contains(r#""missed_lines":[[2,2]]"#));
        assert_eq!(Published::decode(&bytes).unwrap(), published);
    }

    #[test]
    fn other_versions_and_other_bytes_are_refused() {
        let report = Report::empty(Kind::Test);
        let bytes = Published::new("g", Format::JunitXml, Vec::new(), report).encode();
        let newer = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\":1", "\"version\":2");
        let refused = Published::decode(newer.as_bytes());
        assert!(matches!(refused, Err(DecodeError::Version { version: 2 })));
        assert!(matches!(
            Published::decode(b"{}"),
            Err(DecodeError::NotOne(_))
        ));
    }

    #[test]
    fn many_files_are_one_report() {
        let file = |at: usize| {
            let text = format!("<testsuite name='s'><testcase name='{at}'/></testsuite>");
            parse(Format::JunitXml, text.as_bytes()).unwrap()
        };
        let mut files: Vec<_> = (0..7).map(file).collect();
        files.insert(3, Report::empty(Kind::CodeCoverage));
        let merged = Report::of_files(Kind::Test, files);
        assert_eq!(merged.summary(), "7 tests: 7 succeeded");
        assert_eq!(
            Report::of_files(Kind::Test, Vec::new()),
            Report::empty(Kind::Test)
        );
        let coverage = Report::empty(Kind::CodeCoverage);
        assert_eq!(coverage.summary(), "no lines, no branches");
    }

    #[test]
    fn units_of_a_batch_are_one_report_which_fails_if_one_does_and_lacks_what_one_lacks() {
        let good = br#"<testsuite name="s"><testcase name="m"/></testsuite>"#;
        let of = |bytes: &[u8], file: &str| {
            let report = parse(Format::JunitXml, bytes).unwrap();
            Published::new("g", Format::JunitXml, vec![file.to_owned()], report)
        };
        let missing = || Published::incomplete("g", Format::JunitXml);
        let mut merged = of(good, "b.xml");
        merged.absorb_shard(missing());
        assert_eq!(merged.status, ReportStatus::Incomplete);
        assert_eq!(merged.report.summary(), "1 test: 1 succeeded");
        let mut merged = of(good, "b.xml");
        merged.absorb_shard(missing());
        merged.absorb_shard(of(JUNIT, "a.xml"));
        merged.absorb_shard(of(good, "b.xml"));
        assert_eq!(merged.status, ReportStatus::Failed);
        assert_eq!(merged.files, ["a.xml", "b.xml"]);
        assert_eq!(merged.report.summary(), "3 tests: 2 succeeded, 1 failed");
    }

    #[test]
    fn reports_of_two_kinds_are_not_merged() {
        let mut report = Report::empty(Kind::Test);
        assert!(!report.absorb_file(Report::empty(Kind::CodeCoverage)));
        assert!(report.absorb_shard(Report::empty(Kind::Test)));
    }
}
