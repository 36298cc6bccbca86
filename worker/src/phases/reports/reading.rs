//! Reading reports: which files of the build's are reports, by name or by discovery, and what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use ::report::{
    DISCOVERED_FILES_MAX, DISCOVERY_TIME_MAX, FILE_BYTES_MAX, Format, HEAD_BYTES, Published,
    Report, detect, group_name, is_candidate, parse,
};
use cache::{
    file::read_file,
    globs::{GlobError, View, find_artifacts},
    ongoing,
};
use protocol::{
    artifact::ArtifactsSpec,
    path::TreePath,
    report_group::{REPORTS_MAX, ReportSpec},
    time::Time,
};

use crate::{clock, phases::source_path, report::Chain};

/// How many files one group may have: a file for each test class of the largest projects.
const FILES_MAX: usize = 10_000;

/// How deep discovery goes below the source directory: deeper than sources are, and no loop of mounts.
const DEPTH_MAX: usize = 40;

/// What blocks: looking up, reading and parsing.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) root: PathBuf,
    pub(super) project: String,
    /// What the names of groups end in: the batch's task, if it runs a part of the tests.
    pub(super) shard: Option<String>,
    pub(super) specs: Vec<ReportSpec>,
    pub(super) discovers: bool,
    pub(super) pattern: Option<String>,
    /// Files that are in a report.
    pub(super) taken: BTreeSet<TreePath>,
    pub(super) problems: Vec<String>,
    pub(super) published: Vec<Published>,
}

impl Reading {
    /// Looks for all that is asked for and reads it. Blocks.
    pub(super) fn run(mut self) -> Self {
        for spec in std::mem::take(&mut self.specs) {
            if let Err(problem) = self.named(&spec) {
                self.problems.push(format!("[{}: [{problem}]]", spec.group));
            }
        }
        if self.discovers {
            self.discover();
        }
        self.published.truncate(REPORTS_MAX);
        self
    }

    /// A group of the buildspec; what is wrong with it, in the reference's form.
    fn named(&mut self, spec: &ReportSpec) -> Result<(), String> {
        let format = match spec.format.as_str() {
            "" => Format::default(),
            name => name.parse::<Format>().map_err(|error| error.to_string())?,
        };
        let found = self.find(spec)?;
        if found.is_empty() {
            let group = self.in_shard(group(&self.project, &spec.group));
            self.published.push(Published::incomplete(&group, format));
            return Ok(());
        }
        if FILES_MAX < found.len() {
            return Err(format!(
                "{} report files, at most {FILES_MAX} are read",
                found.len()
            ));
        }
        let (mut files, mut reports, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for path in found {
            if ongoing::is_given_up() {
                break;
            }
            let name = shown(&path);
            match self.read(&path, format) {
                Ok(report) => {
                    files.push(name);
                    reports.push(report);
                }
                Err(problem) => wrong.push(format!("{name}: {problem}")),
            }
            self.taken.insert(path);
        }
        if !reports.is_empty() {
            let report = Report::of_files(format.kind(), reports);
            let group = self.in_shard(group(&self.project, &spec.group));
            self.published
                .push(Published::new(&group, format, files, report));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("error processing report: [{}]", wrong.join(" "))),
        }
    }

    /// The name of a group of this shard.
    fn in_shard(&self, group: String) -> String {
        match &self.shard {
            Some(shard) => format!("{group}-{shard}"),
            None => group,
        }
    }

    /// The files of a group, each once: links may lead to one several times.
    fn find(&self, spec: &ReportSpec) -> Result<BTreeSet<TreePath>, String> {
        let spec = ArtifactsSpec {
            files: spec.files.clone(),
            base_directory: spec.base_directory.clone(),
            ..ArtifactsSpec::default()
        };
        let source = source_path();
        let view = View {
            root: &self.root,
            directory: Some(&source),
        };
        match find_artifacts(view, &spec) {
            Ok(found) => Ok(found.files.into_values().collect()),
            Err(GlobError::NoArtifacts | GlobError::NoBaseDirectory { .. }) => Ok(BTreeSet::new()),
            Err(error) => Err(Chain(&error).to_string()),
        }
    }

    fn read(&self, path: &TreePath, format: Format) -> Result<Report, String> {
        let bytes_max = FILE_BYTES_MAX as u64;
        match read_file(&self.root, path, bytes_max) {
            Ok(Some(bytes)) => parse(format, &bytes).map_err(|error| error.to_string()),
            Ok(None) => Err(format!("it is no file of at most {bytes_max} bytes")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// One report for each format that is found in files that no group has.
    fn discover(&mut self) {
        let mut by_format = BTreeMap::<Format, (Vec<String>, Vec<Report>)>::new();
        for path in self.candidates() {
            if ongoing::is_given_up() {
                break;
            }
            let head = read_head(&self.root, &path);
            let Some(format) = head.and_then(|head| detect(&shown(&path), &head)) else {
                continue;
            };
            // It looks like one and is none: nobody asked for it.
            if let Ok(report) = self.read(&path, format) {
                let (files, reports) = by_format.entry(format).or_default();
                files.push(shown(&path));
                reports.push(report);
            }
        }
        for (format, (files, reports)) in by_format {
            let report = Report::of_files(format.kind(), reports);
            let group = self.in_shard(group_name(&self.project, format));
            let mut published = Published::new(&group, format, files, report);
            published.is_discovered = true;
            self.published.push(published);
        }
    }

    /// Files that may be reports, in order.
    fn candidates(&self) -> Vec<TreePath> {
        let found = match &self.pattern {
            None => self.walk(clock::boot() + DISCOVERY_TIME_MAX),
            Some(pattern) => {
                let spec = ReportSpec {
                    files: vec![pattern.clone()],
                    ..ReportSpec::default()
                };
                let found = self.find(&spec).unwrap_or_default();
                found.into_iter().collect()
            }
        };
        let mut files: Vec<_> = found
            .into_iter()
            .filter(|path| !self.taken.contains(path))
            .collect();
        files.sort_unstable();
        files.truncate(DISCOVERED_FILES_MAX);
        files
    }

    /// Files below the source directory that may be reports: all that are found before `until`. Links are not
    /// followed.
    fn walk(&self, until: Time) -> Vec<TreePath> {
        let mut found = Vec::new();
        let mut directories = vec![(source_path(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let place = self
                .root
                .join(std::ffi::OsStr::from_bytes(directory.as_bytes()));
            let Ok(entries) = fs::read_dir(place) else {
                continue;
            };
            for entry in entries.flatten() {
                if until <= clock::boot() {
                    return found;
                }
                let (Ok(kind), Ok(path)) = (
                    entry.file_type(),
                    directory.join(entry.file_name().as_bytes()),
                ) else {
                    continue;
                };
                let below = format!("{}/_.xml", shown(&path));
                if kind.is_dir() && depth < DEPTH_MAX && is_candidate(&below, 1) {
                    directories.push((path, depth + 1));
                } else if kind.is_file() && is_candidate(&shown(&path), 1) {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// The first bytes of a file that is not too long to be a report.
fn read_head(root: &std::path::Path, path: &TreePath) -> Option<Vec<u8>> {
    let mut bytes = read_file(root, path, FILE_BYTES_MAX as u64).ok()??;
    bytes.truncate(HEAD_BYTES);
    Some(bytes)
}

/// A path as people know it: relative to the source directory where it lies below.
fn shown(path: &TreePath) -> String {
    let source = source_path();
    let bytes = match path.is_within(&source) && *path != source {
        true => &path.as_bytes()[source.as_bytes().len() + 1..],
        false => path.as_bytes(),
    };
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name of a group: its project's name is before it, unless it is an ARN, which names it in full.
fn group(project: &str, name: &str) -> String {
    match name.split_once(":report-group/") {
        Some((arn, name)) if arn.starts_with("arn:") => name.to_owned(),
        _ => format!("{project}-{name}"),
    }
}

#[cfg(test)]
mod tests {
    use ::report::ReportStatus;

    use super::*;

    const JUNIT: &str = "<testsuite name='s'><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>";

    fn reading(files: &[(&str, &str)], specs: Vec<ReportSpec>) -> (tempfile::TempDir, Reading) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(crate::ground::SOURCE).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let reading = Reading {
            root: root.path().to_owned(),
            project: "barn".to_owned(),
            shard: None,
            specs,
            discovers: true,
            pattern: None,
            taken: BTreeSet::new(),
            problems: Vec::new(),
            published: Vec::new(),
        };
        (root, reading)
    }

    fn spec(group: &str, format: &str, file: &str) -> ReportSpec {
        ReportSpec {
            group: group.to_owned(),
            format: format.to_owned(),
            files: vec![file.to_owned()],
            ..ReportSpec::default()
        }
    }

    fn said(read: &Reading) -> Vec<String> {
        let said = read.published.iter();
        said.map(|of| {
            format!(
                "{} {} {}",
                of.group,
                of.files.join(" "),
                of.report.summary()
            )
        })
        .collect()
    }

    #[test]
    fn groups_and_discovered_files_are_reports_and_no_file_is_in_two() {
        let files = [
            ("out/a.xml", JUNIT),
            ("out/b.xml", JUNIT),
            ("more/c.xml", JUNIT),
            ("node_modules/x/d.xml", JUNIT),
            ("pom.xml", "<project/>"),
            ("broken.xml", "<testsuite>"),
        ];
        let (_root, reading) = reading(&files, vec![spec("unit", "", "out/*.xml")]);
        let read = reading.run();
        assert_eq!(
            said(&read),
            [
                "barn-unit out/a.xml out/b.xml 4 tests: 2 succeeded, 2 failed",
                "barn-JUNITXML-AutoDiscovered more/c.xml 2 tests: 1 succeeded, 1 failed",
            ]
        );
        assert!(read.published[1].is_discovered && read.problems.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_group_is_said_in_the_form_of_the_reference() {
        let files = [("cov.xml", "<coverage/>"), ("a.xml", JUNIT)];
        let specs = vec![
            spec("unit", "junitxml", "*.xml"),
            spec("none", "", "nothing/*.xml"),
            spec("odd", "TAP", "*.xml"),
        ];
        let (_root, mut reading) = reading(&files, specs);
        reading.discovers = false;
        let read = reading.run();
        assert_eq!(
            read.problems,
            [
                "[unit: [error processing report: [cov.xml: expected element type <testsuite> but have <coverage>]]]",
                "[odd: [unknown report format `TAP`]]",
            ]
        );
        assert_eq!(read.published[0].status, ReportStatus::Failed);
        assert_eq!(read.published[1].status, ReportStatus::Incomplete);
        assert_eq!(
            said(&read),
            [
                "barn-unit a.xml 2 tests: 1 succeeded, 1 failed",
                "barn-none  0 tests"
            ]
        );
    }

    #[test]
    fn the_pattern_says_where_to_discover() {
        let files = [("out/a.xml", JUNIT), ("more/c.xml", JUNIT)];
        let (_root, mut reading) = reading(&files, Vec::new());
        reading.pattern = Some("more/*.xml".to_owned());
        let read = reading.run();
        assert_eq!(
            said(&read),
            ["barn-JUNITXML-AutoDiscovered more/c.xml 2 tests: 1 succeeded, 1 failed"]
        );
    }

    #[test]
    fn an_arn_names_a_group_in_full() {
        assert_eq!(group("p", "unit"), "p-unit");
        assert_eq!(group("p", "arn:aws:codebuild:r:a:report-group/all"), "all");
    }

    #[test]
    fn discovery_takes_at_most_five_seconds() {
        assert_eq!(DISCOVERY_TIME_MAX.as_secs(), 5);
        let (_root, reading) = reading(&[("out/a.xml", JUNIT)], Vec::new());
        assert_eq!(reading.walk(clock::boot() + DISCOVERY_TIME_MAX).len(), 1);
        assert_eq!(reading.walk(clock::boot()), [], "its time is over");
    }
}
