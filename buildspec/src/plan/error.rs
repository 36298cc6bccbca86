//! Why a buildspec without mistakes cannot be run in the way that was asked for.

use protocol::{graph::JOBS_MAX, secret::SECRETS_OF_UNIT_MAX};

use crate::diagnostic::{Diagnostic, Place, quoted};

/// How many names a message lists: enough to see which are meant.
const NAMES_MAX: usize = 5;

/// Why a build cannot be planned.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The file is there for its batch: ask for that.
    #[error("buildspec has no `phases`, only a `batch`")]
    OnlyBatch,
    /// A batch was asked for and the file has none: do not ask for it.
    #[error("buildspec has no `batch` section")]
    NoBatch,
    /// A batch task runs a file without phases, the one that it is in or its own: write some.
    #[error("buildspec has no `phases` for its batch task {}", quoted(task))]
    NoPhases {
        /// The first such task.
        task: String,
        /// Where it is, or where its buildspec begins.
        place: Place,
    },
    /// The shell is one of Windows: no worker has it.
    #[error(
        "`env.shell` is {}, a shell of Windows, and the farm's workers run Linux",
        quoted(shell)
    )]
    Windows {
        /// The shell, as written.
        shell: String,
        /// Where it is named.
        place: Place,
    },
    /// The buildspec that a task has of its own cannot be run: see there.
    #[error("{}: {error}", quoted(path))]
    OfTask {
        /// The path of that buildspec, as the task names it.
        path: String,
        /// Where the task names it.
        place: Place,
        /// Why; its places are in that buildspec.
        error: Box<Self>,
    },
    /// More variables are secrets than a build may have: keep several values in one secret.
    #[error("more than {SECRETS_OF_UNIT_MAX} variables are secrets")]
    TooManySecrets {
        /// The first that is too many.
        place: Place,
    },
    /// Tasks run buildspecs of their own that the request does not have: give them with it, or put what
    /// they do into this file.
    #[error(
        "batch tasks have buildspecs of their own, and can only run the file they are in: {}",
        task_names(tasks)
    )]
    TaskBuildspecs {
        /// Identifiers, paths and where the paths are; at least one.
        tasks: Vec<(String, String, Place)>,
    },
    /// Tasks do not fit together: mend each.
    #[error("batch tasks do not fit together: {}", joined(mistakes))]
    Tasks {
        /// All mistakes, at least one.
        mistakes: Vec<TaskMistake>,
    },
    /// The batch is too long: split it.
    #[error("batch has {tasks} tasks and so {jobs} jobs, at most {JOBS_MAX} are allowed")]
    TooManyJobs {
        /// How many tasks there are.
        tasks: usize,
        /// How many jobs they would be.
        jobs: usize,
    },
    /// Every task carries all commands, and that is too much: move commands into scripts.
    #[error(
        "the commands, variables, patterns and dependencies of {} take {bytes} bytes, at most {limit} are \
         allowed",
        tasks_or_build(*tasks)
    )]
    TooLarge {
        /// How many tasks there are; 1 for a build that is no batch.
        tasks: usize,
        /// How many bytes they would take.
        bytes: usize,
        /// How many they may take.
        limit: usize,
    },
    /// There are several reasons: mend each.
    #[error("{}", all(errors))]
    Several {
        /// The reasons, at least two, none of them this one.
        errors: Vec<Self>,
    },
}

/// What is wrong between the tasks of a batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TaskMistake {
    /// Two tasks have one name: rename one.
    #[error(
        "identifier {} is there twice, first on line {first}",
        quoted(identifier)
    )]
    Duplicate {
        /// The name.
        identifier: String,
        /// The line of the first.
        first: usize,
        /// Where the second is.
        place: Place,
    },
    /// A task depends on one that is not there.
    #[error(
        "task {} depends on {}, which is not there",
        quoted(task),
        quoted(unknown)
    )]
    Unknown {
        /// The task.
        task: String,
        /// What it names.
        unknown: String,
        /// The task with the most similar name.
        nearest: Option<String>,
        /// Where it is named.
        place: Place,
    },
    /// Tasks wait for each other in a circle.
    #[error("tasks depend on each other in a circle: {}", circle(tasks))]
    Cycle {
        /// The tasks, each depending on the next, and the last on the first.
        tasks: Vec<String>,
        /// Where the first is.
        place: Place,
    },
}

impl PlanError {
    /// The same for people, one remark for each mistake, with its place in the file and its repair.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let whole =
            |hint: &str| vec![Diagnostic::error(Place::START, self.to_string()).with_hint(hint)];
        match self {
            Self::OnlyBatch => whole("run it with `--batch`"),
            Self::NoBatch => whole("run it without `--batch`, or add `batch.build-list`"),
            Self::NoPhases { place, .. } => {
                let hint = "add the `phases` that it runs, or name a file that has them as its `buildspec`";
                vec![Diagnostic::error(*place, self.to_string()).with_hint(hint)]
            }
            Self::Windows { place, .. } => {
                let hint = "use `bash`, or leave it out for `/bin/sh`";
                vec![Diagnostic::error(*place, self.to_string()).with_hint(hint)]
            }
            Self::OfTask { path, place, error } => {
                let there = error.diagnostics().into_iter();
                let here = there.map(|remark| Diagnostic {
                    message: format!("{} at {}: {}", quoted(path), remark.place, remark.message),
                    place: *place,
                    ..remark
                });
                here.collect()
            }
            Self::TooManySecrets { place } => {
                let hint = "keep several values in one secret, as a JSON object";
                vec![Diagnostic::error(*place, self.to_string()).with_hint(hint)]
            }
            Self::TaskBuildspecs { tasks } => {
                let place = tasks.first().map_or(Place::START, |(.., place)| *place);
                let hint = "take `buildspec` out of the tasks, and let the `phases` of this file look \
                            at the `env.variables` of each";
                vec![Diagnostic::error(place, self.to_string()).with_hint(hint)]
            }
            Self::Tasks { mistakes } => mistakes.iter().map(TaskMistake::diagnostic).collect(),
            Self::TooManyJobs { .. } => whole("split the batch into several files"),
            Self::TooLarge { .. } => whole("move commands into scripts of the repository"),
            Self::Several { errors } => errors.iter().flat_map(Self::diagnostics).collect(),
        }
    }
}

impl TaskMistake {
    /// The same for people.
    pub(crate) fn diagnostic(&self) -> Diagnostic {
        let (place, hint) = match self {
            Self::Duplicate { place, .. } => {
                (place, Some("give each task a name of its own".to_owned()))
            }
            Self::Unknown { place, nearest, .. } => {
                let hint = nearest
                    .as_ref()
                    .map(|name| format!("did you mean {}?", quoted(name)));
                (place, hint)
            }
            Self::Cycle { place, .. } => {
                (place, Some("take one of these `depend-on` out".to_owned()))
            }
        };
        Diagnostic {
            hint,
            ..Diagnostic::error(*place, self.to_string())
        }
    }
}

fn task_names(tasks: &[(String, String, Place)]) -> String {
    listed(tasks.iter().map(|(task, ..)| task.as_str()))
}

/// The first of `names`, and how many more there are.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown: Vec<String> = names.take(NAMES_MAX).map(quoted).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

fn tasks_or_build(tasks: usize) -> String {
    match tasks {
        1 => "the build".to_owned(),
        _ => format!("{tasks} tasks"),
    }
}

fn all(errors: &[PlanError]) -> String {
    let texts: Vec<String> = errors.iter().map(PlanError::to_string).collect();
    texts.join("; ")
}

fn joined(mistakes: &[TaskMistake]) -> String {
    let texts: Vec<String> = mistakes.iter().map(TaskMistake::to_string).collect();
    texts.join("; ")
}

/// `a -> b -> a`.
fn circle(tasks: &[String]) -> String {
    let names: Vec<&str> = tasks
        .iter()
        .chain(tasks.first())
        .map(String::as_str)
        .collect();
    names.join(" -> ")
}
