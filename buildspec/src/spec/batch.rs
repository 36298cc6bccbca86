//! The `batch` section: the tasks that it names, or stands for.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use protocol::environment::BuildEnvironment;

use crate::diagnostic::Place;

/// The `batch` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Whether the first task that fails stops the others.
    pub fast_fail: bool,
    /// What to run.
    pub tasks: Tasks,
}

/// The four forms that a batch can have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tasks {
    /// `build-list`: tasks that need nothing of each other.
    List(Vec<BatchTask>),
    /// `build-graph`: tasks that may depend on each other.
    Graph(Vec<BatchTask>),
    /// `build-matrix`: a task for each combination.
    Matrix(Box<Matrix>),
    /// `build-fanout`: equal tasks that share tests among them.
    Fanout(Fanout),
}

impl Tasks {
    /// How many tasks there are; `usize::MAX` for more than that.
    pub fn count(&self) -> usize {
        match self {
            Self::List(tasks) | Self::Graph(tasks) => tasks.len(),
            Self::Matrix(matrix) => matrix.count(),
            Self::Fanout(fanout) => usize::try_from(fanout.parallelism).unwrap_or(usize::MAX),
        }
    }

    /// The tasks, in order: as written, or made of what stands for them. Look at [`count`](Self::count)
    /// first.
    pub fn expanded(&self) -> Cow<'_, [BatchTask]> {
        match self {
            Self::List(tasks) | Self::Graph(tasks) => Cow::Borrowed(tasks),
            Self::Matrix(matrix) => Cow::Owned(matrix.tasks()),
            Self::Fanout(fanout) => Cow::Owned(fanout.tasks()),
        }
    }

    /// The buildspecs that tasks have of their own, by path as they name it.
    pub fn buildspecs(&self) -> BTreeSet<String> {
        let own = |task: &BatchTask| task.buildspec.as_ref().map(|(path, _)| path.clone());
        match self {
            Self::List(tasks) | Self::Graph(tasks) => tasks.iter().filter_map(own).collect(),
            Self::Matrix(matrix) => {
                let paths = matrix.buildspecs.iter().map(|(path, _)| path.clone());
                paths.collect()
            }
            Self::Fanout(_) => BTreeSet::new(),
        }
    }
}

/// One task of a batch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BatchTask {
    /// What other tasks and people call it. May be another task's too: that is for the plan to refuse.
    pub identifier: String,
    /// Where the identifier is.
    pub place: Place,
    /// The tasks that have to end first, each with its place; of a `build-graph` only.
    pub depend_on: Vec<(String, Place)>,
    /// Whether the batch can succeed although this task did not.
    pub ignore_failure: bool,
    /// Whether somebody may look into the build while it runs.
    pub debug_session: bool,
    /// On what it is to run.
    pub environment: TaskEnvironment,
    /// Variables that go over those of the file.
    pub variables: BTreeMap<String, String>,
    /// A buildspec of its own, with its place; `None`: this one.
    pub buildspec: Option<(String, Place)>,
}

/// What a task is to run on. Words are as written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskEnvironment {
    /// How large a machine, like `BUILD_GENERAL1_SMALL`; never together with a fleet.
    pub compute_type: Option<String>,
    /// Which reserved machines.
    pub fleet: Option<String>,
    /// Which image.
    pub image: Option<String>,
    /// Which system, like `LINUX_CONTAINER`.
    pub system: Option<String>,
    /// Whether it may use docker.
    pub privileged_mode: bool,
}

impl TaskEnvironment {
    /// What the task asks of its machine.
    pub fn asked(&self) -> BuildEnvironment {
        BuildEnvironment {
            compute_type: self.compute_type.clone(),
            fleet: self.fleet.clone(),
            image: self.image.clone(),
            system: self.system.clone(),
            privileged_mode: self.privileged_mode,
        }
    }
}

/// `build-matrix`: a task for each combination of buildspec, image, compute type and variables.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Matrix {
    /// Where the key is.
    pub place: Place,
    /// What all tasks have. Neither identifier nor buildspec of it count.
    pub fixed: BatchTask,
    /// Buildspecs of their own, with their places; none: this one.
    pub buildspecs: Vec<(String, Place)>,
    /// Images; none: the one of `fixed`.
    pub images: Vec<String>,
    /// Compute types; none: the one of `fixed`.
    pub compute_types: Vec<String>,
    /// Variables in the order of the file, each with its values, of which there is at least one.
    pub variables: Vec<(String, Vec<String>)>,
}

impl Matrix {
    /// How many tasks it stands for; `usize::MAX` for more than that.
    pub fn count(&self) -> usize {
        let of_variables = self.variables.iter().map(|(_, values)| values.len());
        [
            self.buildspecs.len(),
            self.images.len(),
            self.compute_types.len(),
        ]
        .into_iter()
        .chain(of_variables)
        .map(|choices| choices.max(1))
        .fold(1, usize::saturating_mul)
    }

    /// The tasks `build0`, `build1` and so on: of what the file has last, each value once before the next
    /// of what it has before.
    fn tasks(&self) -> Vec<BatchTask> {
        (0..self.count()).map(|number| self.task(number)).collect()
    }

    fn task(&self, number: usize) -> BatchTask {
        let mut task = BatchTask {
            identifier: format!("build{number}"),
            place: self.place,
            ..self.fixed.clone()
        };
        let mut rest = number;
        // The digits of `number`, of which the last changes with each task.
        let mut choose = |choices: usize| {
            let choices = choices.max(1);
            let chosen = rest % choices;
            rest /= choices;
            chosen
        };
        for (name, values) in self.variables.iter().rev() {
            if let Some(value) = values.get(choose(values.len())) {
                task.variables.insert(name.clone(), value.clone());
            }
        }
        if let Some(word) = self.compute_types.get(choose(self.compute_types.len())) {
            task.environment.compute_type = Some(word.clone());
        }
        if let Some(image) = self.images.get(choose(self.images.len())) {
            task.environment.image = Some(image.clone());
        }
        if let Some(buildspec) = self.buildspecs.get(choose(self.buildspecs.len())) {
            task.buildspec = Some(buildspec.clone());
        }
        task
    }
}

/// `build-fanout`: equal tasks, each of which runs its part of the tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fanout {
    /// Where the key is.
    pub place: Place,
    /// How many tasks, from 1.
    pub parallelism: u32,
    /// Whether the batch can succeed although a task did not.
    pub ignore_failure: bool,
}

impl Fanout {
    fn tasks(&self) -> Vec<BatchTask> {
        let task = |shard| BatchTask {
            identifier: format!("BuildFanoutShard{shard}"),
            place: self.place,
            ignore_failure: self.ignore_failure,
            ..BatchTask::default()
        };
        (0..self.parallelism).map(task).collect()
    }
}
