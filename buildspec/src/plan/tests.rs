//! Tests of planning: graphs as text that one can read.

use protocol::{
    build::{Outcome, Phase},
    graph::JOBS_MAX,
    job::{ShellState, Task},
};

use super::*;
use crate::{Diagnostic, parse};

mod caches;
mod forms;
mod secrets;
mod sections;

fn spec(text: &str) -> BuildSpec {
    let parsed = parse(text);
    parsed
        .spec
        .unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// A file with one command per phase, these lines below `phases.build`, and these at the end.
fn file(of_build: &str, end: &str) -> BuildSpec {
    spec(&format!(
        "version: 0.2\nphases:\n  install:\n    commands: [i]\n  build:\n    commands: [b]\n{of_build}{end}"
    ))
}

fn batch(lines: &str) -> BuildSpec {
    file("", &format!("batch:\n  build-graph:\n{lines}"))
}

const BATCH: fn() -> PlanRequest = || PlanRequest {
    batch: true,
    ..PlanRequest::default()
};

fn shown(accepts: OutcomeSet) -> &'static str {
    match accepts {
        OutcomeSet::SUCCEEDED => "succeeded",
        OutcomeSet::RAN => "ran",
        OutcomeSet::ENDED => "ended",
        _ => "something else",
    }
}

/// One line for each job: `index unit phase < needed index accepted outcomes`.
fn graph_of(graph: &JobGraph) -> String {
    let mut text = String::new();
    for (at, job) in graph.jobs.iter().enumerate() {
        let unit = &graph.units[usize::try_from(job.unit).unwrap()];
        let name = unit.identifier.as_deref().unwrap_or("-");
        let needs: Vec<String> = job
            .needs
            .iter()
            .map(|edge| format!("{} {}", edge.job, shown(edge.accepts)))
            .collect();
        text += format!("{at} {name} {} < {}", job.phase, needs.join(", ")).trim_end();
        text += "\n";
    }
    text
}

/// What holds of every graph.
#[track_caller]
fn assert_sound(graph: &JobGraph) {
    for (at, job) in graph.jobs.iter().enumerate() {
        assert!(job.needs.is_sorted_by(|a, b| a.job < b.job), "edges ascend");
        assert!(
            job.needs
                .iter()
                .all(|edge| usize::try_from(edge.job).unwrap() < at)
        );
        let is_first = job.phase == Phase::DownloadSource;
        assert_eq!(job.input.is_none(), is_first);
        if let Some(input) = job.input {
            assert_eq!(graph.jobs[usize::try_from(input).unwrap()].unit, job.unit);
            assert_eq!(job.needs.last().unwrap().job, input);
        }
    }
    for unit in 0..graph.units.len() {
        let phases: Vec<Phase> = graph
            .jobs_of(index(unit))
            .map(|(_, job)| job.phase)
            .collect();
        let all = [
            Phase::DownloadSource,
            Phase::Install,
            Phase::PreBuild,
            Phase::Build,
            Phase::PostBuild,
            Phase::UploadArtifacts,
        ];
        assert_eq!(phases, all);
    }
}

#[test]
fn a_build_is_a_chain_of_six_jobs_with_codebuilds_transitions() {
    let graph = plan(&file("", ""), &PlanRequest::default()).unwrap();
    assert_sound(&graph);
    assert_eq!(
        graph_of(&graph),
        "\
0 - DOWNLOAD_SOURCE <
1 - INSTALL < 0 succeeded
2 - PRE_BUILD < 1 succeeded
3 - BUILD < 2 succeeded
4 - POST_BUILD < 3 ran
5 - UPLOAD_ARTIFACTS < 4 ran
"
    );
    assert!(!graph.fast_fail && !graph.units[0].ignore_failure);
}

#[test]
fn on_failure_widens_or_narrows_what_follows_a_phase() {
    let edge_after = |phase: &str, on_failure: &str| {
        let text = format!(
            "version: 0.2\nphases:\n  {phase}:\n    on-failure: {on_failure}\n    commands: [a]\n"
        );
        let graph = plan(&spec(&text), &PlanRequest::default()).unwrap();
        let at = graph
            .jobs
            .iter()
            .position(|job| job.phase.as_str().eq_ignore_ascii_case(phase))
            .unwrap();
        let all: Vec<&str> = graph
            .jobs
            .iter()
            .skip(1)
            .map(|job| shown(job.needs[0].accepts))
            .collect();
        let usual = ["succeeded", "succeeded", "succeeded", "ran", "ran"];
        let changed = all
            .iter()
            .zip(usual)
            .enumerate()
            .filter(|(edge, (now, usual))| *edge != at && *now != usual);
        assert_eq!(changed.count(), 0, "only the edge out of {phase} changes");
        all[at]
    };
    assert_eq!(edge_after("install", "CONTINUE"), "ran");
    assert_eq!(edge_after("pre_build", "CONTINUE"), "ran");
    assert_eq!(edge_after("pre_build", "ABORT"), "succeeded");
    assert_eq!(edge_after("build", "ABORT"), "succeeded");
    assert_eq!(edge_after("build", "CONTINUE"), "ran");
    assert_eq!(edge_after("post_build", "ABORT"), "succeeded");
}

#[test]
fn jobs_carry_what_the_file_says() {
    let text = "
version: 0.2
env: {shell: bash, variables: {A: spec, B: spec}}
phases:
  post_build: {commands: [p], finally: [f]}
artifacts: {files: [out]}
cache: {paths: [c], key: k}
";
    let variables = BTreeMap::from([("B".to_owned(), "request".to_owned())]);
    let request = PlanRequest {
        variables,
        ..PlanRequest::default()
    };
    let graph = plan(&spec(text), &request).unwrap();
    let Task::DownloadSource {
        variables,
        cache,
        unasked,
        shell,
        preface,
        ..
    } = &graph.jobs[0].task
    else {
        panic!()
    };
    assert_eq!(
        (variables["A"].as_str(), variables["B"].as_str()),
        ("spec", "request")
    );
    assert_eq!(cache.as_ref().unwrap().paths, ["c"]);
    assert_eq!(*unasked, None);
    assert_eq!(*shell, protocol::job::Shell::Bash);
    assert_eq!(preface.phases, [(Phase::PostBuild, 1)]);
    let Task::Commands(build) = &graph.jobs[3].task else {
        panic!()
    };
    assert!(
        build.is_empty(),
        "an empty phase is a job with nothing to do: {build:?}"
    );
    let Task::Commands(post) = &graph.jobs[4].task else {
        panic!()
    };
    assert_eq!(
        (post.commands.as_slice(), post.finally.as_slice()),
        (&["p".to_owned()][..], &["f".to_owned()][..])
    );
    assert_eq!(post.state, ShellState::Carried);
    assert_eq!(post.save_cache, *cache);
    let Task::UploadArtifacts { artifacts, .. } = &graph.jobs[5].task else {
        panic!()
    };
    assert_eq!(artifacts.as_ref().unwrap().files, ["out"]);
}

#[test]
fn version_0_1_gives_every_command_a_fresh_shell() {
    let text = "version: 0.1\nphases:\n  build:\n    commands: [a]\n";
    let graph = plan(&spec(text), &PlanRequest::default()).unwrap();
    let Task::Commands(build) = &graph.jobs[3].task else {
        panic!()
    };
    assert_eq!(build.state, ShellState::Fresh);
}

#[test]
fn tasks_keep_their_order_and_their_jobs_follow_what_they_need() {
    let spec = batch(
        "    - identifier: late\n      depend-on: [first, second, first]\n    - identifier: first\n      ignore-failure: true\n    - identifier: second\n",
    );
    let graph = plan(&spec, &BATCH()).unwrap();
    assert_sound(&graph);
    let names: Vec<_> = graph
        .units
        .iter()
        .map(|unit| unit.identifier.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["late", "first", "second"]);
    let lines = graph_of(&graph);
    let starts: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("DOWNLOAD"))
        .collect();
    assert_eq!(
        starts,
        [
            "0 first DOWNLOAD_SOURCE <",
            "6 second DOWNLOAD_SOURCE <",
            "12 late DOWNLOAD_SOURCE < 0 ended, 1 ended, 2 ended, 3 ended, 4 ended, 5 ended, \
             6 succeeded, 7 succeeded, 8 succeeded, 9 succeeded, 10 succeeded, 11 succeeded",
        ]
    );
    assert!(graph.jobs[12].needs[0].accepts.contains(Outcome::Skipped));
    assert!(!graph.jobs[12].needs[0].accepts.contains(Outcome::Stopped));
    assert!(graph.units[1].ignore_failure && !graph.units[2].ignore_failure);
}

#[test]
fn the_request_goes_over_the_task_and_the_task_over_the_file() {
    let text = "
version: 0.2
env: {variables: {A: file, B: file, C: file}}
phases: {build: {commands: [a]}}
batch:
  fast-fail: true
  build-list:
    - {identifier: x, env: {variables: {B: task, C: task}}}
    - {identifier: y}
";
    let request = PlanRequest {
        variables: BTreeMap::from([("C".to_owned(), "request".to_owned())]),
        batch: true,
        ..PlanRequest::default()
    };
    let graph = plan(&spec(text), &request).unwrap();
    let values = |job: usize| {
        let Task::DownloadSource { variables, .. } = &graph.jobs[job].task else {
            panic!()
        };
        variables.values().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        (values(0).as_str(), values(6).as_str()),
        ("file task request", "file file request")
    );
    assert!(graph.fast_fail);
}

/// The remarks of a refused plan, `line:column message | hint`, one per line.
#[track_caller]
fn refused(spec: &BuildSpec, request: &PlanRequest) -> String {
    let error = plan(spec, request).expect_err("it cannot be planned");
    let line = |d: &Diagnostic| {
        let hint = d.hint.as_deref().unwrap_or("-");
        format!(
            "{}:{} {} | {hint}\n",
            d.place.line, d.place.column, d.message
        )
    };
    error.diagnostics().iter().map(line).collect()
}

#[test]
fn tasks_that_do_not_fit_together_are_all_named() {
    // The parser finds these; a spec that was made otherwise is checked all the same.
    let mut spec = batch(
        "    - identifier: a
    - {identifier: bild}
    - {identifier: c}
    - {identifier: self}
    - {identifier: z}
",
    );
    let Some(Tasks::Graph(tasks) | Tasks::List(tasks)) =
        spec.batch.as_mut().map(|batch| &mut batch.tasks)
    else {
        panic!()
    };
    let needs = [
        vec!["c"],
        vec!["a"],
        vec!["bild", "biuld"],
        vec!["self"],
        vec![],
    ];
    for (task, needs) in tasks.iter_mut().zip(needs) {
        let place = task.place;
        task.depend_on = needs
            .into_iter()
            .map(|name| (name.to_owned(), place))
            .collect();
    }
    tasks[4].identifier = "a".to_owned();
    assert_eq!(
        refused(&spec, &BATCH()),
        "\
13:20 identifier `a` is there twice, first on line 9 | give each task a name of its own
11:20 task `c` depends on `biuld`, which is not there | did you mean `bild`?
9:19 tasks depend on each other in a circle: a -> c -> bild -> a | take one of these `depend-on` out
12:20 tasks depend on each other in a circle: self -> self | take one of these `depend-on` out
"
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_what_to_do() {
    let only_batch = spec("version: 0.2\nbatch:\n  build-list:\n    - identifier: a\n");
    assert_eq!(
        refused(&only_batch, &PlanRequest::default()),
        "1:1 buildspec has no `phases`, only a `batch` | run it with `--batch`\n"
    );
    assert_eq!(
        refused(&only_batch, &BATCH()),
        "4:19 buildspec has no `phases` for its batch task `a` | add the `phases` that it runs, or name a file that has \
         them as its `buildspec`\n"
    );
    assert_eq!(
        refused(&file("", ""), &BATCH()),
        "1:1 buildspec has no `batch` section | run it without `--batch`, or add `batch.build-list`\n"
    );
    let windows = file("", "env: {shell: cmd.exe}\n");
    assert!(
        refused(&windows, &PlanRequest::default()).starts_with("7:14 `env.shell` is `cmd.exe`")
    );
    let own = batch("    - {identifier: a, buildspec: a.yml}\n");
    assert!(refused(&own, &BATCH()).starts_with("9:34 batch tasks have buildspecs of their own"));
}

#[test]
fn a_batch_that_is_too_large_is_refused_before_it_is_made() {
    let tasks = |count: usize| -> String {
        (0..count)
            .map(|task| format!("    - identifier: t{task}\n"))
            .collect()
    };
    assert_eq!(
        plan(&batch(&tasks(1_000)), &BATCH()).unwrap().jobs.len(),
        JOBS_MAX
    );
    // The parser refuses this; a spec that was made otherwise is checked all the same.
    let mut too_many = batch(&tasks(1_000));
    let Some(Tasks::Graph(all)) = too_many.batch.as_mut().map(|batch| &mut batch.tasks) else {
        panic!()
    };
    all.push(BatchTask::default());
    assert_eq!(
        plan(&too_many, &BATCH()),
        Err(PlanError::TooManyJobs {
            tasks: 1_001,
            jobs: 6_006
        })
    );
    let long = "x".repeat(50_000);
    let spec = spec(&format!(
        "version: 0.2\nphases:\n  build:\n    commands: [{long}]\nbatch:\n  build-list:\n{}",
        tasks(500)
    ));
    let error = plan(&spec, &BATCH()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the commands, variables, patterns and dependencies of 500 tasks take 25064000 bytes, at most 8388608 \
         are allowed"
    );
}

#[test]
fn many_small_texts_count_and_so_do_dependencies() {
    let tasks = |count: usize| -> String {
        (0..count)
            .map(|task| format!("    - identifier: t{task}\n"))
            .collect()
    };
    let commands = |count: usize| format!("[{}'']", "'',".repeat(count - 1));
    let of = |commands: &str, tasks: &str| {
        spec(&format!(
            "version: 0.2\nphases: {{build: {{commands: {commands}}}}}\nbatch:\n  build-list:\n{tasks}"
        ))
    };
    let too_large = |graph| matches!(graph, Err(PlanError::TooLarge { .. }));
    assert!(too_large(plan(
        &of(&commands(250), &tasks(1_000)),
        &BATCH()
    )));
    assert!(plan(&of(&commands(100), &tasks(1_000)), &BATCH()).is_ok());
    let single = of(&commands(140_000), &tasks(1));
    let error = plan(&single, &PlanRequest::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("of the build take 8960064 bytes"),
        "{error}"
    );

    // 500 tasks of which each needs each of 90 others would be 270,000 edges.
    let mut dense = of("[a]", &tasks(590));
    let Some(Tasks::List(list)) = dense.batch.as_mut().map(|batch| &mut batch.tasks) else {
        panic!()
    };
    for task in &mut list[90..] {
        let names = (0..90).map(|other| (format!("t{other}"), task.place));
        task.depend_on = names.collect();
    }
    assert!(too_large(plan(&dense, &BATCH())));
}

#[test]
fn whatever_a_file_writes_counts_for_each_task() {
    let long = "x".repeat(100_000);
    for keys in [
        "run-as: {}",
        "phases: {install: {runtime-versions: {python: '{}'}, commands: [x]}}",
        "phases: {build: {finally: ['{}'], commands: [x]}}",
        "env: {variables: {A: '{}'}}",
        "env: {parameter-store: {A: '{}'}}",
        "env: {exported-variables: ['{}']}",
        "artifacts: {files: [a], name: '{}'}",
        "artifacts: {files: [a], base-directory: '{}'}",
        "artifacts: {files: [a], exclude-paths: ['{}']}",
        "artifacts: {files: [a], secondary-artifacts: {one: {files: ['{}']}}}",
        "reports: {'{}': {files: [a]}}",
        "reports: {group: {files: [a], base-directory: '{}'}}",
        "cache: {paths: ['{}']}",
        "cache: {key: '{}', paths: [a]}",
    ] {
        let keys = keys.replace("{}", &long);
        let commands = match keys.starts_with("phases") {
            true => "",
            false => "phases: {build: {commands: [x]}}\n",
        };
        let tasks: String = (0..100)
            .map(|task| format!("    - identifier: t{task}\n"))
            .collect();
        let text = format!("version: 0.2\n{commands}{keys}\nbatch:\n  build-list:\n{tasks}");
        let planned = plan(&spec(&text), &BATCH());
        assert!(
            matches!(planned, Err(PlanError::TooLarge { .. })),
            "{}: {:?}",
            &keys[..40.min(keys.len())],
            planned.map(|graph| graph.jobs.len())
        );
    }
}

#[test]
fn all_reasons_why_a_batch_cannot_be_run_are_named_at_once() {
    let text = "
version: 0.2
env: {shell: cmd.exe}
batch:
  build-list:
    - {identifier: x, buildspec: x.yml}
    - {identifier: y}
";
    let error = plan(&spec(text), &BATCH()).unwrap_err();
    let remarks: Vec<_> = error.diagnostics().into_iter().map(|d| d.message).collect();
    let expected = [
        "`env.shell` is `cmd.exe`",
        "has no `phases`",
        "batch tasks have buildspecs of their own",
    ];
    assert_eq!(remarks.len(), expected.len(), "{remarks:?}");
    for (remark, expected) in remarks.iter().zip(expected) {
        assert!(remark.contains(expected), "{remark}");
    }
}
