//! What a build's report files say: test results and code coverage in ten formats, as one model.
//!
//! Bytes come in, a [`Report`] or a [`ParseError`] with the place in the file comes out. Reports of
//! several files or shards are merged, compared with a former build's, and written to and read from
//! the bytes that the farm keeps. Finding and reading files is the caller's.

mod cases;
mod compare;
mod coverage;
mod discover;
mod format;
mod json;
mod lines;
mod parse;
mod place;
mod published;
mod read;
mod text;
mod xml;

pub use cases::{CASES_MAX, Case, CaseStatus, Place, REPORTED_CASES_MAX, TestReport, Totals};
pub use compare::{CaseName, Comparison, CoverageChange, FileChange, Slower, compare};
pub use coverage::{Count, CoverageReport, FILES_MAX, FileCoverage};
pub use discover::{
    DISCOVERED_FILES_MAX, DISCOVERY_TIME_MAX, DISCOVERY_VARIABLE, HEAD_BYTES, PATTERN_VARIABLE,
    PATTERNS, detect, group_name, is_candidate, is_enabled,
};
pub use format::{Format, Kind, UnknownFormat};
pub use lines::{Lines, LinesOutOfOrder};
pub use parse::{FILE_BYTES_MAX, ParseError, Position, parse};
pub use published::{DecodeError, PUBLISHED_BYTES_MAX, Published, Report, ReportStatus};
