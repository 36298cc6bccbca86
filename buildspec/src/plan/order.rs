//! The order of batch tasks: each after all that it depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::TaskMistake;
use crate::{advice::nearest, spec::BatchTask};

/// A unit in the order in which jobs are numbered.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Placed {
    /// Index into the tasks.
    pub unit: usize,
    /// Indices of the tasks that it depends on, ascending, each once.
    pub depends_on: BTreeSet<usize>,
}

/// How many mistakes are listed: more than anybody reads.
const MISTAKES_MAX: usize = 20;

/// Puts `tasks` in an order in which each comes after all that it depends on, and otherwise as written.
///
/// # Errors
///
/// All duplicates, unknown names and circles.
pub(super) fn order(tasks: &[BatchTask]) -> Result<Vec<Placed>, Vec<TaskMistake>> {
    order_among(tasks, &BTreeSet::new())
}

/// What [`order`] finds wrong. `unread` are the names of tasks that are there, but have mistakes of their
/// own: that others depend on them is no mistake of these.
pub(crate) fn mistakes(tasks: &[BatchTask], unread: &BTreeSet<String>) -> Vec<TaskMistake> {
    order_among(tasks, unread).err().unwrap_or_default()
}

fn order_among(
    tasks: &[BatchTask],
    unread: &BTreeSet<String>,
) -> Result<Vec<Placed>, Vec<TaskMistake>> {
    let mut mistakes = Vec::new();
    let by_name = by_name(tasks, &mut mistakes);
    let mut waiting: BTreeMap<usize, BTreeSet<usize>> = tasks
        .iter()
        .map(|task| dependencies(task, (&by_name, unread), &mut mistakes))
        .enumerate()
        .collect();
    let full = waiting.clone();
    let mut placed = Vec::with_capacity(tasks.len());
    loop {
        place_ready(&mut waiting, &mut placed);
        if waiting.is_empty() || mistakes.len() >= MISTAKES_MAX {
            break;
        }
        let circle = circle(&waiting);
        let first = &tasks[circle[0]];
        mistakes.push(TaskMistake::Cycle {
            tasks: circle
                .iter()
                .map(|&unit| tasks[unit].identifier.clone())
                .collect(),
            place: first.place,
        });
        // Without the last edge of the circle, the others that it may be in show.
        let last = circle[circle.len() - 1];
        waiting.entry(last).or_default().remove(&circle[0]);
    }
    if !mistakes.is_empty() {
        mistakes.truncate(MISTAKES_MAX);
        return Err(mistakes);
    }
    let placed = placed.into_iter().map(|unit| Placed {
        unit,
        depends_on: full[&unit].clone(),
    });
    Ok(placed.collect())
}

/// The first task of each name.
fn by_name<'a>(
    tasks: &'a [BatchTask],
    mistakes: &mut Vec<TaskMistake>,
) -> BTreeMap<&'a str, usize> {
    let mut by_name = BTreeMap::new();
    for (unit, task) in tasks.iter().enumerate() {
        let first = *by_name.entry(task.identifier.as_str()).or_insert(unit);
        if first != unit {
            mistakes.push(TaskMistake::Duplicate {
                identifier: task.identifier.clone(),
                first: tasks[first].place.line,
                place: task.place,
            });
        }
    }
    by_name
}

/// What `task` depends on, as far as it is there.
fn dependencies(
    task: &BatchTask,
    (by_name, unread): (&BTreeMap<&str, usize>, &BTreeSet<String>),
    mistakes: &mut Vec<TaskMistake>,
) -> BTreeSet<usize> {
    let mut known = BTreeSet::new();
    for (name, place) in &task.depend_on {
        if let Some(&unit) = by_name.get(name.as_str()) {
            known.insert(unit);
        } else if mistakes.len() < MISTAKES_MAX && !unread.contains(name) {
            mistakes.push(TaskMistake::Unknown {
                task: task.identifier.clone(),
                unknown: name.clone(),
                nearest: nearest(name, by_name.keys().copied()).map(str::to_owned),
                place: *place,
            });
        }
    }
    known
}

/// Moves every task from `waiting` to `placed` that waits for nothing, the earliest first.
fn place_ready(waiting: &mut BTreeMap<usize, BTreeSet<usize>>, placed: &mut Vec<usize>) {
    let mut dependents: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (&unit, depends_on) in &*waiting {
        for &other in depends_on {
            dependents.entry(other).or_default().push(unit);
        }
    }
    let mut ready: BTreeSet<usize> = waiting
        .iter()
        .filter(|(_, depends_on)| depends_on.is_empty())
        .map(|(&unit, _)| unit)
        .collect();
    while let Some(unit) = ready.pop_first() {
        waiting.remove(&unit);
        placed.push(unit);
        for &dependent in dependents.get(&unit).into_iter().flatten() {
            let left = waiting
                .get_mut(&dependent)
                .expect("what waits is not placed");
            left.remove(&unit);
            if left.is_empty() {
                ready.insert(dependent);
            }
        }
    }
}

/// A circle among tasks that all wait for one another, starting with its earliest task.
fn circle(waiting: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<usize> {
    let next = |unit: &usize| {
        waiting[unit]
            .first()
            .copied()
            .expect("nothing in `waiting` is ready")
    };
    let (&start, _) = waiting.first_key_value().expect("something waits");
    let mut path = vec![start];
    let mut seen = BTreeSet::from([start]);
    let mut unit = next(&start);
    while seen.insert(unit) {
        path.push(unit);
        unit = next(&unit);
    }
    let entered = path
        .iter()
        .position(|&on_path| on_path == unit)
        .expect("the path met itself");
    let mut circle = path.split_off(entered);
    let earliest = circle.iter().min().copied().expect("a circle has a task");
    let at = circle
        .iter()
        .position(|&unit| unit == earliest)
        .expect("it is in there");
    circle.rotate_left(at);
    circle
}
