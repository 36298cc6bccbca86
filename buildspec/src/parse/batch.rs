//! The section `batch`.

mod matrix;
mod task;

use protocol::graph::TASKS_MAX;

use self::{
    matrix::{fanout, matrix},
    task::tasks,
};
use crate::{
    diagnostic::Diagnostic,
    keys::{BATCH, GRAPH_TASK, LIST_TASK},
    reader::Reader,
    spec::{Batch, Tasks},
    yaml::{Content, Entry, Node},
};

/// The forms of a batch, of which there has to be one.
const FORMS: [&str; 4] = ["build-list", "build-graph", "build-matrix", "build-fanout"];

/// Reads `batch`; `None` for nothing, and after an error.
pub(super) fn batch<'a>(reader: &mut Reader<'a>, node: &'a Node) -> Option<Batch> {
    let fields = reader.fields(node, "`batch`", &BATCH);
    let fast_fail = reader.flag(fields.get("fast-fail"), "`batch.fast-fail`");
    let forms: Vec<&Entry> = FORMS.iter().filter_map(|form| fields.entry(form)).collect();
    let Some(form) = forms.first() else {
        if matches!(node.content, Content::Map(_)) || node.is_null() {
            let message =
                "`batch` has no `build-list`, `build-graph`, `build-matrix` or `build-fanout`";
            reader.error(node.place, message);
        }
        return None;
    };
    for other in &forms[1..] {
        let message = format!("`batch` has both `{}` and `{}`", form.key, other.key);
        reader.say(Diagnostic::error(other.place, message).with_hint("take one of them out"));
    }
    let tasks = match form.key.as_str() {
        "build-list" => Tasks::List(tasks(reader, form, &LIST_TASK)),
        "build-graph" => Tasks::Graph(tasks(reader, form, &GRAPH_TASK)),
        "build-matrix" => Tasks::Matrix(Box::new(matrix(reader, form)?)),
        _ => Tasks::Fanout(fanout(reader, form)?),
    };
    if tasks.count() > TASKS_MAX {
        let message = match tasks.count() {
            usize::MAX => format!(
                "`batch.{}` stands for more builds than can be counted",
                form.key
            ),
            count => format!("`batch.{}` stands for {count} builds", form.key),
        };
        let message = format!("{message}, at most {TASKS_MAX} are possible");
        let hint = "split it into several files";
        reader.say(Diagnostic::error(form.place, message).with_hint(hint));
    }
    Some(Batch { fast_fail, tasks })
}
