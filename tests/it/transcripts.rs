//! Real buildspecs run, with recording stand-ins for docker, aws, npm and the like on the `PATH`: the
//! calls, their directories and variables, and the ends of phases are those of `tests/transcripts`, which
//! were written from the language's reference. The files themselves are not in the repository:
//! `GRANGE_CORPUS` names their directory.

mod compare;
mod expected;
mod found;
mod stand_in;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use serde_json::Value;
use testkit::farm::{Farm, FarmPlan};

use self::{compare::Places, expected::Transcript, found::Found};
use crate::levels::has_namespaces;

/// Differences that are known: the file, and how the difference begins. Each of them must still be there.
const KNOWN: &[(&str, &str)] = &[(
    "010.yml",
    r#"["npm", "run", "build-storybook"] sees CI="{UNSET}", found Some("true")"#,
)];

/// How many builds run at once.
const BUILDS: usize = 2;

/// `PATH` of builds: stand-ins first, then what every machine has.
const PATH: &str = "/codebuild/output/src/src/.stand-ins:/usr/bin:/bin";

/// What a program prints, without the end of its line.
fn printed(program: &str, arguments: &[&str], directory: &Path) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Writes the source tree of a transcript.
fn write_source(transcript: &Transcript, corpus: &Path, source: &Path) -> Places {
    let file = corpus.join(&transcript.file);
    let sum = printed("sha256sum", &[file.to_str().unwrap()], source);
    let name = &transcript.file;
    assert!(
        sum.starts_with(&transcript.sha256),
        "{name} is another file"
    );
    let text = fs::read_to_string(&file).unwrap();
    for runtime in transcript.runtimes.keys() {
        assert!(text.contains(&format!("{runtime}:")), "{name}: {runtime}");
    }
    fs::write(source.join("buildspec.yml"), text).unwrap();
    for (path, text) in &transcript.source {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut commit = String::new();
    if transcript.git {
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "."],
            &[
                "-c",
                "user.name=A",
                "-c",
                "user.email=a@example.org",
                "commit",
                "--quiet",
                "--message",
                "first",
            ],
        ] {
            printed("git", arguments, source);
        }
        commit = printed("git", &["rev-parse", "HEAD"], source);
    }
    stand_in::write(transcript, source);
    Places { commit }
}

/// The paths of all files below a directory, sorted.
fn files(directory: &Path) -> Vec<String> {
    let mut directories = vec![directory.to_owned()];
    let mut files = Vec::new();
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let path = path.strip_prefix(directory).unwrap();
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// Runs a transcript; what was otherwise.
fn disagreements(transcript: &Transcript, corpus: &Path, farm: &Farm) -> Vec<String> {
    let source = tempfile::tempdir().unwrap();
    let places = write_source(transcript, corpus, source.path());
    let project = format!("file-{}", transcript.file.trim_end_matches(".yml"));
    let mut arguments = vec!["--project".to_owned(), project.clone()];
    for (name, value) in &transcript.variables {
        arguments.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    let fetched = tempfile::tempdir().unwrap();
    let to = fetched.path().join("artifacts");
    if transcript.artifacts.is_some() {
        arguments.extend(["--artifacts".to_owned(), to.to_str().unwrap().to_owned()]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let built = farm.build(source.path(), &arguments);
    let found = Found::in_log(&built.stdout);
    let mut differences = compare::differences(transcript, &places, &found);
    let succeeds = transcript
        .phases
        .iter()
        .all(|end| end.status == "SUCCEEDED");
    let code = i32::from(!succeeds);
    if built.code != code {
        let (found, said) = (built.code, &built.stderr);
        differences.push(format!("exit code {code}, found {found}: {said}"));
    }
    if let Some(artifacts) = &transcript.artifacts {
        let found = if to.is_dir() { files(&to) } else { Vec::new() };
        if &found != artifacts {
            differences.push(format!("artifacts {artifacts:?}, found {found:?}"));
        }
    }
    let status = farm.status(&format!("{project}#1"));
    let exported = exported(&status);
    if exported != transcript.exported {
        let expected = &transcript.exported;
        differences.push(format!("exported {expected:?}, found {exported:?}"));
    }
    differences
}

/// The variables that a build exports.
fn exported(status: &Value) -> BTreeMap<String, String> {
    let units = status["units"].as_array().unwrap().iter();
    let exported = units.filter_map(|unit| unit["exported_variables"].as_object());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    exported
        .flatten()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// The differences that are not known, and the known ones that are not there any more.
fn unknown(file: &str, mut differences: Vec<String>) -> Vec<String> {
    for (_, known) in KNOWN.iter().filter(|(known, _)| *known == file) {
        let at = differences
            .iter()
            .position(|found| found.starts_with(known));
        match at {
            Some(at) => {
                differences.remove(at);
            }
            None => differences.push(format!("agrees by now, take it out of KNOWN: {known}")),
        }
    }
    differences
}

/// Whether a transcript holds on this machine; says so if not.
fn holds_here(transcript: &Transcript) -> bool {
    let target = fs::canonicalize("/bin/sh").unwrap();
    let sh = target.file_name().unwrap_or_default();
    match &transcript.sh {
        Some(expected) if sh != expected.as_str() => {
            let file = &transcript.file;
            testkit::skip(&format!(
                "{file} is of machines whose /bin/sh is {expected}"
            ));
            false
        }
        _ => true,
    }
}

/// Checks that stand-ins are found before the real programs, which must not run for this.
fn check_path(farm: &Farm) {
    let source = tempfile::tempdir().unwrap();
    let buildspec = format!(
        "version: 0.2\nphases:\n  build:\n    commands: ['case $PATH in {PATH}*) echo first ;; esac']\n"
    );
    testkit::project::write_buildspec(source.path(), &buildspec);
    let built = farm.build(source.path(), &["--project", "path"]);
    assert!(built.stdout.contains("\nfirst\n"), "{}", built.stdout);
}

#[test]
fn real_buildspecs_do_what_the_reference_says() {
    let Some(corpus) = testkit::corpus() else {
        testkit::skip("GRANGE_CORPUS does not name the directory of the real buildspecs");
        return;
    };
    if !has_namespaces() {
        return;
    }
    let farm = Farm::start(FarmPlan {
        slots: u32::try_from(BUILDS).unwrap(),
        isolation: Some("namespace"),
        settings: format!("[worker]\npath = '{PATH}'\n"),
        ..FarmPlan::default()
    });
    check_path(&farm);
    let mut transcripts = expected::transcripts();
    transcripts.retain(holds_here);
    let count = transcripts.len();
    let next = Mutex::new(transcripts.into_iter());
    let broken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..BUILDS {
            scope.spawn(|| {
                loop {
                    let one = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(one) = one else { break };
                    let differences = disagreements(&one, &corpus, &farm);
                    let unknown = unknown(&one.file, differences);
                    if !unknown.is_empty() {
                        let lines = format!("{}:\n  {}", one.file, unknown.join("\n  "));
                        let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                        broken.push(lines);
                    }
                }
            });
        }
    });
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort();
    let (agree, known) = (count - broken.len(), KNOWN.len());
    testkit::tell(&format!(
        "{agree} of {count} transcripts agree, with {known} known differences"
    ));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
