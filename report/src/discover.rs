//! Reports that nobody asked for: after the build phase, `CodeBuild` looks through all files of the build
//! for ones that look like reports, and makes one report for each format.
//!
//! `CodeBuild` says that it searches `**/*` and what turns that off, not how it tells. Here a name says
//! which files are opened, and the first bytes what they are.

use std::time::Duration;

use crate::format::Format;
use crate::parse::FILE_BYTES_MAX;
use crate::text;
use crate::xml::{Element, Xml};

/// Set to `false`, a build's variable of this name turns discovery off. Commands may change it.
pub const DISCOVERY_VARIABLE: &str = "CODEBUILD_CONFIG_AUTO_DISCOVER";

/// A build's variable of this name says where to look instead of [`PATTERNS`].
pub const PATTERN_VARIABLE: &str = "CODEBUILD_CONFIG_AUTO_DISCOVER_DIR";

/// Where to look, relative to the source directory.
pub const PATTERNS: &str = "**/*";

/// How long looking may take: `CodeBuild`'s limit. What was found by then counts.
pub const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(5);

/// How many files discovery reads. More are not somebody's reports.
pub const DISCOVERED_FILES_MAX: usize = 1_000;

/// How many first bytes of a file tell what it is: a declaration, comments, a document type, and the first
/// elements.
pub const HEAD_BYTES: usize = 16 << 10;

/// Directories of dependencies and tools: reports in them are of somebody else's build.
const FOREIGN_DIRECTORIES: &[&str] = &[
    ".git",
    ".gradle",
    ".m2",
    ".nuget",
    ".tox",
    ".venv",
    "bower_components",
    "node_modules",
    "site-packages",
    "vendor",
];

/// Whether a build's variables leave discovery on; `None`, if the variable is not set.
pub fn is_enabled(variable: Option<&str>) -> bool {
    !variable.is_some_and(|value| value.trim().eq_ignore_ascii_case("false"))
}

/// Whether a file is worth opening. `path` is relative to the source directory, with `/`.
pub fn is_candidate(path: &str, bytes: u64) -> bool {
    let fits = u64::try_from(FILE_BYTES_MAX).is_ok_and(|bytes_max| bytes <= bytes_max);
    let ends = [".xml", ".trx", ".json"];
    let lower = path.to_ascii_lowercase();
    let mut directories = path.split('/').rev().skip(1);
    0 < bytes
        && fits
        && ends.iter().any(|end| lower.ends_with(end))
        && !directories.any(|name| FOREIGN_DIRECTORIES.contains(&name))
}

/// What a file is, by its name and first bytes; `None`, if it is no report. The rest of it may still be
/// broken: a discovered file that does not parse is left out, it fails nobody's build.
pub fn detect(path: &str, head: &[u8]) -> Option<Format> {
    let text = text::decode(head).ok()?;
    let lower = path.to_ascii_lowercase();
    if lower.ends_with(".json") {
        json(&lower, &text)
    } else {
        xml(&text)
    }
}

/// The name of the group of discovered reports of a format.
pub fn group_name(project: &str, format: Format) -> String {
    format!("{project}-{format}-AutoDiscovered")
}

fn xml(text: &str) -> Option<Format> {
    let mut xml = Xml::new(text);
    let root = xml.any_root().ok()?;
    match root.name() {
        "testsuite" | "testsuites" => Some(Format::JunitXml),
        "test-results" => Some(Format::NunitXml),
        "test-run" => Some(Format::Nunit3Xml),
        "testng-results" => Some(Format::TestngXml),
        "TestRun" => {
            let namespace = root.text_of("xmlns");
            let is_visual_studio = namespace.contains("TeamTest") || namespace.is_empty();
            is_visual_studio.then_some(Format::VisualStudioTrx)
        }
        "coverage" => coverage(&root, &mut xml),
        "report" => {
            // Anything may be called a report.
            let mut child = || xml.child().ok().flatten();
            let first = child()?;
            let is_jacoco = ["sessioninfo", "package", "group", "counter"].contains(&first.name());
            is_jacoco.then_some(Format::JacocoXml)
        }
        _ => None,
    }
}

/// Clover and Cobertura share the name of their first element.
fn coverage(root: &Element<'_>, xml: &mut Xml<'_>) -> Option<Format> {
    if root.attribute("clover").is_some() {
        return Some(Format::CloverXml);
    }
    if root.attribute("line-rate").is_some() {
        return Some(Format::CoberturaXml);
    }
    match xml.child().ok()??.name() {
        "project" => Some(Format::CloverXml),
        "packages" | "sources" => Some(Format::CoberturaXml),
        _ => None,
    }
}

/// Only the begin of the file is there, so the words are looked for that it has to have.
fn json(path: &str, text: &str) -> Option<Format> {
    let has = |word: &str| text.contains(&format!("\"{word}\""));
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut begin = text.chars().filter(|c| !c.is_whitespace());
    match (begin.next()?, begin.next()?) {
        ('[', '{') if has("elements") && has("keyword") && has("steps") => {
            Some(Format::CucumberJson)
        }
        ('{', '"') if file == ".resultset.json" && has("coverage") => Some(Format::Simplecov),
        ('{', '"') if has("simplecov_version") && has("coverage") => Some(Format::Simplecov),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_turns_it_off_by_false_only() {
        assert!(is_enabled(None) && is_enabled(Some("true")) && is_enabled(Some("")));
        assert!(!is_enabled(Some("false")) && !is_enabled(Some(" FALSE")));
    }

    #[test]
    fn only_files_that_may_be_reports_are_opened() {
        for path in [
            "a.xml",
            "build/Test.XML",
            "x/y.trx",
            "coverage/.resultset.json",
        ] {
            assert!(is_candidate(path, 10), "{path}");
        }
        for path in [
            "a.txt",
            "xml",
            "node_modules/a/junit.xml",
            "a/.git/b.json",
            "a.xml/b",
        ] {
            assert!(!is_candidate(path, 10), "{path}");
        }
        assert!(!is_candidate("a.xml", 0) && !is_candidate("a.xml", 1 << 40));
        assert!(is_candidate("node_modules.xml", 1));
    }

    #[test]
    fn first_elements_tell_the_format() {
        let cases: &[(&str, Option<Format>)] = &[
            ("<testsuites/>", Some(Format::JunitXml)),
            ("<!-- x --><testsuite name='a'>", Some(Format::JunitXml)),
            ("<test-results>", Some(Format::NunitXml)),
            ("<test-run id='2'>", Some(Format::Nunit3Xml)),
            ("<testng-results skipped='1'>", Some(Format::TestngXml)),
            ("<coverage clover='3.2.0'>", Some(Format::CloverXml)),
            (
                "<coverage generated='1'><project timestamp='1'>",
                Some(Format::CloverXml),
            ),
            ("<coverage line-rate='0.5'>", Some(Format::CoberturaXml)),
            ("<coverage><sources>", Some(Format::CoberturaXml)),
            (
                "<report name='x'><sessioninfo id='a'/>",
                Some(Format::JacocoXml),
            ),
            ("<report><chapter/>", None),
            ("<coverage>", None),
            ("<project><modelVersion/>", None),
            ("<TestRun xmlns='http://example.com'>", None),
            ("no xml", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(detect("a.xml", text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn utf_16_is_told_too() {
        let text = "<?xml version=\"1.0\" encoding=\"utf-16\"?><TestRun xmlns=\"http://microsoft.com/schemas/VisualStudio/TeamTest/2010\">";
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(detect("a.trx", &bytes), Some(Format::VisualStudioTrx));
    }

    #[test]
    fn json_needs_the_words_of_its_format() {
        let cucumber = br#"[ {"elements": [{"keyword": "Scenario", "steps": [{"#;
        assert_eq!(detect("a.json", cucumber), Some(Format::CucumberJson));
        let set = br#"{"RSpec": {"coverage": {"#;
        assert_eq!(
            detect("coverage/.resultset.json", set),
            Some(Format::Simplecov)
        );
        assert_eq!(detect("coverage/other.json", set), None);
        let formatter = br#"{"meta": {"simplecov_version": "0.22.0"}, "coverage": {"#;
        assert_eq!(detect("coverage.json", formatter), Some(Format::Simplecov));
        assert_eq!(detect("package.json", br#"{"name": "coverage"}"#), None);
        assert_eq!(detect("a.json", b"[]"), None);
    }

    #[test]
    fn discovered_groups_are_named_after_project_and_format() {
        let name = group_name("barn", Format::JunitXml);
        assert_eq!(name, "barn-JUNITXML-AutoDiscovered");
    }
}
