//! Real buildspecs that nobody of this project wrote: each parses, or is refused for the reason that
//! `tests/corpus/expected.toml` gives. The files are not in the repository: `GRANGE_CORPUS` names their
//! directory.

mod compare;
mod expected;
mod found;
mod known;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use protocol::digest::Digest;
use serde_json::Value;

use self::{
    expected::{Expected, Table},
    found::Found,
    known::{KNOWN, NOT_ACTED_ON},
};

/// What `tests/corpus/README.md` says.
const README: &str = include_str!("../corpus/README.md");

/// The bytes of a file, which must be those that were judged.
fn bytes(corpus: &Path, name: &str, expected: &Expected) -> Vec<u8> {
    let path = corpus.join(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digest = Digest::of(&bytes).to_string();
    assert_eq!(
        digest, expected.digest,
        "{name} is not the file that was judged"
    );
    bytes
}

/// What is wrong with the parser's answers: a line for each disagreement that is not in [`KNOWN`], and one
/// for each file in it that agrees.
fn broken(corpus: &Path, table: &Table) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, expected) in table {
        let found = Found::in_file(&bytes(corpus, name, expected));
        let differences = compare::differences(expected, &found);
        let known = KNOWN.iter().any(|(file, _)| file == name);
        if known && differences.is_empty() {
            broken.push(format!("{name}: agrees by now: take it out of KNOWN"));
        }
        if !known {
            let line = |difference| format!("{name}: {difference}");
            broken.extend(differences.into_iter().map(line));
        }
    }
    broken
}

#[test]
fn every_real_buildspec_parses_or_is_refused_for_the_right_reason() {
    let Some(corpus) = testkit::corpus() else {
        testkit::skip("GRANGE_CORPUS does not name the directory of the real buildspecs");
        return;
    };
    let broken = broken(&corpus, &expected::table());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn what_the_farm_does_not_act_on_is_what_is_known() {
    let Some(corpus) = testkit::corpus() else {
        testkit::skip("GRANGE_CORPUS does not name the directory of the real buildspecs");
        return;
    };
    let found: BTreeSet<String> = expected::table()
        .iter()
        .flat_map(|(name, expected)| Found::in_file(&bytes(&corpus, name, expected)).not_acted_on)
        .collect();
    let known: BTreeSet<String> = NOT_ACTED_ON.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn the_table_has_each_file_of_the_corpus_and_no_other() {
    let Some(corpus) = testkit::corpus() else {
        testkit::skip("GRANGE_CORPUS does not name the directory of the real buildspecs");
        return;
    };
    let files: BTreeSet<String> = fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yml"))
        .collect();
    let judged: BTreeSet<String> = expected::table().into_keys().collect();
    assert_eq!(files, judged);
}

#[test]
fn the_readme_says_of_each_refused_file_why_and_of_no_other() {
    let explained: BTreeSet<String> = README
        .lines()
        .skip_while(|line| *line != "## The refused files")
        .take_while(|line| *line != "## Doubtful")
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|number| format!("{number}.yml"))
        .collect();
    let refused: BTreeSet<String> = expected::table()
        .into_iter()
        .filter(|(_, expected)| expected.is_refused())
        .map(|(name, _)| name)
        .collect();
    assert!(!refused.is_empty());
    assert_eq!(explained, refused);
}

#[test]
fn what_is_known_to_disagree_is_in_the_table_once_and_has_a_reason() {
    let table = expected::table();
    for (number, (file, why)) in KNOWN.iter().enumerate() {
        assert!(table.contains_key(*file), "{file} is not in the table");
        assert!(!why.is_empty(), "{file} disagrees for no reason");
        let again = KNOWN[..number].iter().any(|(other, _)| other == file);
        assert!(!again, "{file} is there twice");
    }
}

/// Which tasks wait for which in the batches of the corpus that are graphs, as their `depend-on` says.
const GRAPHS: [(&str, &[(usize, usize)]); 2] = [("050.yml", &[(1, 0)]), ("124.yml", &[(1, 0)])];

/// What `grange buildspec plan` makes of a file.
fn planned(corpus: &Path, name: &str) -> (i32, String, Value) {
    let mut command = Command::new(testkit::program::grange());
    let path = corpus.join(name);
    command.args(["buildspec", "plan", "--format", "json"]);
    let output = command.arg(path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let plan = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), said, plan)
}

/// The units that wait for others, each with those.
fn edges(plan: &Value) -> BTreeSet<(usize, usize)> {
    let jobs = plan["jobs"].as_array().unwrap();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let unit = |job: &Value| number(&job["unit"]);
    let edges = jobs.iter().flat_map(|job| {
        let needs = job["needs"].as_array().unwrap().iter();
        needs.map(move |need| (unit(job), unit(&jobs[number(&need["job"])])))
    });
    edges.filter(|(job, needed)| job != needed).collect()
}

#[test]
fn every_real_batch_is_planned_or_refused_for_the_right_reason() {
    let Some(corpus) = testkit::corpus() else {
        testkit::skip("GRANGE_CORPUS does not name the directory of the real buildspecs");
        return;
    };
    let mut graphs = 0;
    for (name, expected) in expected::table() {
        let text = String::from_utf8_lossy(&bytes(&corpus, &name, &expected)).into_owned();
        let is_batch = text.lines().any(|line| line.starts_with("batch:"));
        let (code, said, plan) = planned(&corpus, &name);
        match expected.batch {
            Some(batch) if !LACKS_PHASES.contains(&name.as_str()) => {
                assert_eq!(code, 0, "{name}: {said}");
                assert_eq!(
                    plan["units"].as_array().unwrap().len(),
                    batch.tasks,
                    "{name}"
                );
                assert_eq!(
                    plan["jobs"].as_array().unwrap().len(),
                    6 * batch.tasks,
                    "{name}"
                );
                let known = GRAPHS.iter().find(|(graph, _)| *graph == name);
                if let Some((_, known)) = known {
                    assert_eq!(edges(&plan), known.iter().copied().collect(), "{name}");
                    graphs += 1;
                }
                let is_graph = batch.kind == "build-graph";
                assert!(is_graph || edges(&plan).is_empty(), "{name}");
            }
            Some(_) => {
                assert_eq!(code, 2, "{name}");
                let why = "buildspec has no `phases` for its batch task `py39_awses_latest`";
                assert!(said.contains(why), "{name}: {said}");
            }
            None => assert_eq!(is_batch, is_batch && code == 2, "{name}: {said}"),
        }
    }
    assert_eq!(graphs, GRAPHS.len());
}

/// Files with a task that runs the file itself, which has no phases.
const LACKS_PHASES: [&str; 1] = ["088.yml"];
