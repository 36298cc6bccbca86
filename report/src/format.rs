//! The file formats of reports, by the names that buildspecs use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a report file says, and how. The texts are `CodeBuild`'s values of `file-format`.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Format {
    /// Clover's coverage XML, which `PHPUnit` and istanbul write too.
    CloverXml,
    /// Cobertura's coverage XML, which coverage.py, istanbul and coverlet write too.
    CoberturaXml,
    /// Cucumber's JSON: features, scenarios, steps.
    CucumberJson,
    /// JaCoCo's XML.
    JacocoXml,
    /// JUnit's XML, which nearly every test tool can write. What a buildspec that names no format means.
    #[default]
    JunitXml,
    /// NUnit 3's XML.
    Nunit3Xml,
    /// NUnit 2's XML.
    NunitXml,
    /// SimpleCov's result set.
    Simplecov,
    /// TestNG's own XML.
    TestngXml,
    /// Visual Studio's test results.
    VisualStudioTrx,
}

/// What kind of report a format makes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// Lines and branches that tests reached.
    CodeCoverage,
    /// Test cases and what came of them.
    Test,
}

impl Format {
    /// All formats, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::CloverXml,
        Self::CoberturaXml,
        Self::CucumberJson,
        Self::JacocoXml,
        Self::JunitXml,
        Self::Nunit3Xml,
        Self::NunitXml,
        Self::Simplecov,
        Self::TestngXml,
        Self::VisualStudioTrx,
    ];

    /// The value of `file-format` that means it, in capitals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloverXml => "CLOVERXML",
            Self::CoberturaXml => "COBERTURAXML",
            Self::CucumberJson => "CUCUMBERJSON",
            Self::JacocoXml => "JACOCOXML",
            Self::JunitXml => "JUNITXML",
            Self::Nunit3Xml => "NUNIT3XML",
            Self::NunitXml => "NUNITXML",
            Self::Simplecov => "SIMPLECOV",
            Self::TestngXml => "TESTNGXML",
            Self::VisualStudioTrx => "VISUALSTUDIOTRX",
        }
    }

    /// Whether it says tests or coverage.
    pub const fn kind(self) -> Kind {
        match self {
            Self::CloverXml | Self::CoberturaXml | Self::JacocoXml | Self::Simplecov => {
                Kind::CodeCoverage
            }
            Self::CucumberJson
            | Self::JunitXml
            | Self::Nunit3Xml
            | Self::NunitXml
            | Self::TestngXml
            | Self::VisualStudioTrx => Kind::Test,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// Case does not matter.
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|format| format.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// A `file-format` that no report has. The buildspec's author names one of [`Format::ALL`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown report format `{0}`")]
pub struct UnknownFormat(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_its_own_name_in_any_case() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
            assert_eq!(format.as_str().to_lowercase().parse(), Ok(format));
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(json, format!("\"{format}\""));
        }
        assert_eq!("NunitXml".parse(), Ok(Format::NunitXml));
        assert_eq!(
            "junit".parse::<Format>(),
            Err(UnknownFormat("junit".to_owned()))
        );
    }

    #[test]
    fn a_buildspec_that_names_none_means_junit() {
        assert_eq!(Format::default(), Format::JunitXml);
    }
}
