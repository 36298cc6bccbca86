//! The `reports` section: groups of files that test tools write.

/// A group of test reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReportGroup {
    /// Which files, relative to the base directory; at least one pattern.
    pub files: Vec<String>,
    /// Where they lie; `None`: in the source directory.
    pub base_directory: Option<String>,
    /// Whether the files' directories do not count.
    pub discard_paths: bool,
    /// What the files are; `None` if the word for it is none that CodeBuild has.
    pub format: Option<ReportFormat>,
}

/// What a file of a report is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReportFormat {
    /// Cucumber's JSON.
    CucumberJson,
    /// `JUnit`'s XML, the default.
    #[default]
    JunitXml,
    /// XML of `NUnit` 2.
    NunitXml,
    /// XML of `NUnit` 3.
    Nunit3Xml,
    /// `TestNG`'s XML.
    TestNgXml,
    /// Visual Studio's TRX.
    VisualStudioTrx,
    /// Clover's XML, of coverage.
    CloverXml,
    /// Cobertura's XML, of coverage.
    CoberturaXml,
    /// `JaCoCo`'s XML, of coverage.
    JacocoXml,
    /// `SimpleCov`'s JSON, of coverage.
    SimpleCov,
}

impl ReportFormat {
    /// All formats, tests first.
    pub const ALL: [Self; 10] = [
        Self::CucumberJson,
        Self::JunitXml,
        Self::NunitXml,
        Self::Nunit3Xml,
        Self::TestNgXml,
        Self::VisualStudioTrx,
        Self::CloverXml,
        Self::CoberturaXml,
        Self::JacocoXml,
        Self::SimpleCov,
    ];

    /// The word for it in a buildspec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CucumberJson => "CUCUMBERJSON",
            Self::JunitXml => "JUNITXML",
            Self::NunitXml => "NUNITXML",
            Self::Nunit3Xml => "NUNIT3XML",
            Self::TestNgXml => "TESTNGXML",
            Self::VisualStudioTrx => "VISUALSTUDIOTRX",
            Self::CloverXml => "CLOVERXML",
            Self::CoberturaXml => "COBERTURAXML",
            Self::JacocoXml => "JACOCOXML",
            Self::SimpleCov => "SIMPLECOV",
        }
    }

    /// The format with the name `word`, in any case; `None` if there is none.
    pub fn named(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.as_str().eq_ignore_ascii_case(word.trim()))
    }

    /// Whether it is about coverage, and not about tests.
    pub const fn is_coverage(self) -> bool {
        matches!(
            self,
            Self::CloverXml | Self::CoberturaXml | Self::JacocoXml | Self::SimpleCov
        )
    }
}
