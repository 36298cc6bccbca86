//! Tests of the forms of a batch that stand for tasks, of tasks with buildspecs of their own, and of what
//! jobs have in common.

use protocol::job::Retry;

use super::*;

/// A file with a command `b` in `build`, an `install`, and these lines as its batch.
fn with_batch(lines: &str) -> BuildSpec {
    file("", &format!("batch:\n{lines}"))
}

/// By unit, its name and the variables that it starts with, `build0 A=1 B=2`.
fn starts(graph: &JobGraph) -> Vec<String> {
    let start = |unit| {
        let (_, job) = graph.jobs_of(unit).next().unwrap();
        let Task::DownloadSource { variables, .. } = &job.task else {
            panic!("a unit starts with its source")
        };
        let variables = variables
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        let name = graph.units[unit as usize].identifier.as_deref();
        format!("{}{}", name.unwrap_or("-"), variables.collect::<String>())
    };
    (0..index(graph.units.len())).map(start).collect()
}

#[test]
fn a_matrix_becomes_a_task_for_each_combination() {
    let spec = with_batch(
        "  fast-fail: true
  build-matrix:
    static:
      ignore-failure: true
      env: {variables: {FIXED: f, V: overridden}}
    dynamic:
      env:
        variables:
          V: [3.9, 3.10]
          OS: [a, b, c]
",
    );
    let graph = plan(&spec, &BATCH()).unwrap();
    assert_sound(&graph);
    assert_eq!(
        starts(&graph),
        [
            "build0 FIXED=f OS=a V=3.9",
            "build1 FIXED=f OS=b V=3.9",
            "build2 FIXED=f OS=c V=3.9",
            "build3 FIXED=f OS=a V=3.10",
            "build4 FIXED=f OS=b V=3.10",
            "build5 FIXED=f OS=c V=3.10",
        ]
    );
    assert!(graph.fast_fail && graph.units.iter().all(|unit| unit.ignore_failure));
    assert!(graph.units.iter().all(|unit| unit.shard.is_none()));
    let first_needs = graph
        .jobs
        .iter()
        .step_by(JOBS_PER_UNIT)
        .map(|job| job.needs.len());
    assert_eq!(first_needs.sum::<usize>(), 0, "no task waits for another");
}

#[test]
fn images_and_buildspecs_multiply_a_matrix_too() {
    let spec = with_batch(
        "  build-matrix:
    dynamic:
      buildspec: [a.yml, b.yml]
      env: {image: [x, y], compute-type: BUILD_GENERAL1_SMALL}
",
    );
    let tasks = spec.batch.unwrap().tasks;
    assert_eq!(tasks.count(), 4);
    let shown: Vec<String> = tasks
        .expanded()
        .iter()
        .map(|task| {
            let (path, _) = task.buildspec.as_ref().unwrap();
            let environment = &task.environment;
            assert_eq!(
                environment.compute_type.as_deref(),
                Some("BUILD_GENERAL1_SMALL")
            );
            format!("{path} {}", environment.image.as_deref().unwrap())
        })
        .collect();
    assert_eq!(shown, ["a.yml x", "a.yml y", "b.yml x", "b.yml y"]);
}

#[test]
fn the_largest_matrix_is_planned() {
    let values = |count: usize| {
        let values: Vec<String> = (0..count).map(|value| value.to_string()).collect();
        values.join(", ")
    };
    let spec = with_batch(&format!(
        "  build-matrix: {{dynamic: {{env: {{variables: {{A: [{}], B: [{}]}}}}}}}}\n",
        values(40),
        values(25)
    ));
    assert_eq!(plan(&spec, &BATCH()).unwrap().jobs.len(), JOBS_MAX);
}

#[test]
fn a_fanout_becomes_equal_tasks_that_know_their_part() {
    let spec = with_batch("  build-fanout: {parallelism: 3, ignore-failure: yes}\n");
    let graph = plan(&spec, &BATCH()).unwrap();
    assert_sound(&graph);
    let units: Vec<_> = graph
        .units
        .iter()
        .map(|unit| {
            let shard = unit.shard.unwrap();
            assert!(unit.ignore_failure);
            (
                unit.identifier.as_deref().unwrap(),
                shard.index,
                shard.count,
            )
        })
        .collect();
    assert_eq!(
        units,
        [
            ("BuildFanoutShard0", 0, 3),
            ("BuildFanoutShard1", 1, 3),
            ("BuildFanoutShard2", 2, 3)
        ]
    );
}

#[test]
fn shards_can_share_what_comes_before_build() {
    let spec = with_batch("  build-fanout: {parallelism: 3}\n");
    let graph = plan(&spec, &BATCH()).unwrap();
    let same = same_work(&graph);
    assert_eq!(same[..6], [0, 1, 2, 3, 4, 5]);
    assert_eq!(same[6..12], [0, 1, 2, 9, 10, 11]);
    assert_eq!(same[12..], [0, 1, 2, 15, 16, 17]);
}

#[test]
fn tasks_that_start_differently_share_nothing_after_it() {
    let spec = with_batch(
        "  build-list:
    - {identifier: a}
    - {identifier: b, env: {variables: {X: 1}}}
    - {identifier: c}
    - {identifier: d, env: {variables: {X: 1}}}
",
    );
    let graph = plan(&spec, &BATCH()).unwrap();
    let same = same_work(&graph);
    assert_eq!(same[6..12], [6, 7, 8, 9, 10, 11]);
    assert_eq!(same[12..15], [0, 1, 2]);
    assert_eq!(same[18..21], [6, 7, 8]);
}

#[test]
fn a_task_runs_the_buildspec_of_its_own_that_the_request_has() {
    let spec = spec(
        "
version: 0.2
env: {variables: {A: of the batch}, secrets-manager: {NOT_NEEDED: s}}
batch:
  build-graph:
    - {identifier: x, buildspec: ci/x.yml, env: {variables: {B: task}}}
    - {identifier: y, buildspec: ci/y.yml, depend-on: [x]}
",
    );
    let own = |text: &str| super::spec(text);
    let x = own(
        "version: 0.2\nenv: {variables: {A: x, B: x}}\nphases: {build: {commands: [make x]}}\n",
    );
    let y = own("version: 0.1\nphases: {build: {commands: [make y]}}\n");
    let request = PlanRequest {
        buildspecs: BTreeMap::from([("ci/x.yml".to_owned(), x), ("ci/y.yml".to_owned(), y)]),
        ..BATCH()
    };
    let graph = plan(&spec, &request).unwrap();
    assert_sound(&graph);
    assert_eq!(starts(&graph), ["x A=x B=task", "y"]);
    let commands = |job: usize| {
        let Task::Commands(phase) = &graph.jobs[job].task else {
            panic!("`build` has commands")
        };
        (phase.commands.join(","), phase.state)
    };
    assert_eq!(commands(3), ("make x".to_owned(), ShellState::Carried));
    assert_eq!(commands(9), ("make y".to_owned(), ShellState::Fresh));
    assert_eq!(
        refused(&spec, &BATCH()).lines().count(),
        1,
        "what no task runs is not looked at"
    );
}

#[test]
fn what_is_wrong_in_a_buildspec_of_a_task_is_told_where_the_task_names_it() {
    let spec = with_batch(
        "  build-list:\n    - {identifier: a, buildspec: a.yml}\n    - {identifier: b, buildspec: a.yml}\n",
    );
    let a = super::spec(
        "version: 0.2\nenv: {shell: cmd.exe}\nbatch: {build-fanout: {parallelism: 2}}\n",
    );
    let request = PlanRequest {
        buildspecs: BTreeMap::from([("a.yml".to_owned(), a)]),
        ..BATCH()
    };
    let remarks = refused(&spec, &request);
    let lines: Vec<&str> = remarks.lines().collect();
    assert!(
        lines[0].starts_with("9:34 `a.yml` at line 2, column 14: `env.shell`"),
        "{remarks}"
    );
    assert!(lines[1].contains("has no `phases`"), "{remarks}");
    assert_eq!(lines.len(), 2, "each file is told of once");
}

#[test]
fn who_runs_commands_and_how_often_reaches_the_jobs() {
    let spec = spec(
        "
version: 0.2
run-as: builder
phases:
  install: {run-as: root, commands: [i]}
  build: {on-failure: RETRY-2-timed out, commands: [b]}
",
    );
    let graph = plan(&spec, &PlanRequest::default()).unwrap();
    let phase = |job: usize| {
        let Task::Commands(phase) = &graph.jobs[job].task else {
            panic!("it has commands")
        };
        (phase.run_as.as_deref(), phase.retry.as_ref())
    };
    assert_eq!(phase(1), (Some("root"), None));
    let retry = Retry {
        count: 2,
        pattern: "timed out".to_owned(),
    };
    assert_eq!(phase(3), (Some("builder"), Some(&retry)));
    assert_eq!(shown(graph.jobs[4].needs[0].accepts), "ran");
}
