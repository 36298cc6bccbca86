//! One report file: which reading its format takes, and what can be wrong with it.

use std::fmt;

use crate::coverage::CoverageReport;
use crate::format::Format;
use crate::published::Report;
use crate::{TestReport, read, text};

/// How long a report file may be: some 200,000 test cases with their output, or the coverage of a
/// million lines. The shell that reads files stops here.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// What one file says.
///
/// # Errors
///
/// [`ParseError`]; the file is not a report of this format, or over a limit. The build's author
/// is told, with the name of the file; nothing of it is kept.
pub fn parse(format: Format, bytes: &[u8]) -> Result<Report, ParseError> {
    if FILE_BYTES_MAX < bytes.len() {
        return Err(ParseError::TooLong {
            bytes: bytes.len(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    let text = text::decode(bytes).map_err(|label| ParseError::UnknownEncoding {
        label: quoted(&label),
    })?;
    if text.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    let tests = |report: TestReport| Ok(Report::Test(report));
    let coverage = |report: CoverageReport| Ok(Report::CodeCoverage(report));
    match format {
        Format::CloverXml => read::clover(&text).and_then(coverage),
        Format::CoberturaXml => read::cobertura(&text).and_then(coverage),
        Format::CucumberJson => read::cucumber(&text).and_then(tests),
        Format::JacocoXml => read::jacoco(&text).and_then(coverage),
        Format::JunitXml => read::junit(&text).and_then(tests),
        Format::Nunit3Xml => read::nunit3(&text).and_then(tests),
        Format::NunitXml => read::nunit2(&text).and_then(tests),
        Format::Simplecov => read::simplecov(&text).and_then(coverage),
        Format::TestngXml => read::testng(&text).and_then(tests),
        Format::VisualStudioTrx => read::trx(&text).and_then(tests),
    }
}

/// Where in a file: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// Where the byte `offset` of `text` lies; the end, if it is past that or inside a character.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a file is not a report of its format.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing in it: the tool that should have written it was stopped, most likely.
    #[error("the file is empty")]
    Empty,
    /// It is not JSON.
    #[error("{at}: not JSON: {problem}")]
    NotJson {
        /// Where reading stopped.
        at: Position,
        /// What the reader says.
        problem: String,
    },
    /// It is not well-formed XML.
    #[error("{at}: not well-formed XML: {problem}")]
    NotXml {
        /// Where reading stopped.
        at: Position,
        /// What the reader says.
        problem: String,
    },
    /// Elements are nested deeper than any report has them.
    #[error("{at}: elements are nested deeper than {depth_max}")]
    TooDeep {
        /// Where the first element over the limit begins.
        at: Position,
        /// The limit.
        depth_max: usize,
    },
    /// The file is longer than reports may be. Its author splits it.
    #[error("the file has {bytes} bytes, at most {bytes_max} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// JSON with more values than are held in memory. Its author splits it.
    #[error("more than {values_max} JSON values")]
    TooManyValues {
        /// The limit.
        values_max: usize,
    },
    /// It ends in the middle: the tool that wrote it was stopped, most likely.
    #[error("{at}: the file ends inside <{open}>")]
    Truncated {
        /// The end of the file.
        at: Position,
        /// The innermost element that is open there.
        open: String,
    },
    /// Something is not what the format has in this place.
    #[error("{at}: expected {expected} but have {found}")]
    Unexpected {
        /// Where it is.
        at: Position,
        /// What the format has there.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// JSON of another shape. JSON is read as a whole, so the place is a path in it.
    #[error("{path}: expected {expected} but have {found}")]
    UnexpectedValue {
        /// Where it is, such as `[3].elements`.
        path: String,
        /// What the format has there.
        expected: &'static str,
        /// The kind of value that there is.
        found: &'static str,
    },
    /// The declared encoding is unknown.
    #[error("unknown encoding `{label}`")]
    UnknownEncoding {
        /// As the file writes it, cut.
        label: String,
    },
    /// It is a report of another format, or none. The words are `CodeBuild`'s.
    #[error("expected element type <{expected}> but have <{found}>")]
    WrongRoot {
        /// The first element of a report of this format.
        expected: &'static str,
        /// The first element of the file, cut.
        found: String,
    },
}

/// How much of a file an error quotes.
const QUOTED_CHARACTERS_MAX: usize = 80;

/// What an error quotes of a file.
pub(crate) fn quoted(text: &str) -> String {
    text::cut(text, QUOTED_CHARACTERS_MAX).to_owned()
}

#[cfg(test)]
mod tests;
