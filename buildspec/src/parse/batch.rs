//! The section `batch`.

use std::collections::BTreeSet;

use crate::{
    diagnostic::{Diagnostic, Place},
    keys::{BATCH, GRAPH_TASK, LIST_TASK, Level, TASK_ENV},
    plan,
    reader::Reader,
    spec::{Batch, BatchTask, Tasks},
    yaml::{Content, Entry, Node},
};

/// How long the identifier of a task may be, in characters: CodeBuild's limit.
const IDENTIFIER_CHARS_MAX: usize = 128;
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
        "build-matrix" => Tasks::Matrix(form.place),
        _ => Tasks::Fanout(form.place),
    };
    Some(Batch { fast_fail, tasks })
}

fn tasks<'a>(reader: &mut Reader<'a>, form: &'a Entry, level: &Level) -> Vec<BatchTask> {
    let what = format!("`batch.{}`", form.key);
    let nodes = match &form.value.content {
        Content::List(nodes) if !nodes.is_empty() => nodes,
        _ => {
            let found = match form.value.content {
                Content::List(_) => "an empty one",
                _ => form.value.kind(),
            };
            let message = format!("{what} has to be a list of tasks, not {found}");
            let hint = "write `- identifier: NAME` for each task";
            reader.say(Diagnostic::error(form.value.place, message).with_hint(hint));
            return Vec::new();
        }
    };
    let mut tasks = Vec::with_capacity(nodes.len());
    let mut unread = BTreeSet::new();
    for node in nodes {
        match task(reader, node, level) {
            Ok(task) => tasks.push(task),
            Err(name) => unread.extend(name),
        }
    }
    for mistake in plan::mistakes(&tasks, &unread) {
        reader.say(mistake.diagnostic());
    }
    tasks
}

/// Reads a task; after an error gives its name, if it has one that others may depend on.
fn task<'a>(
    reader: &mut Reader<'a>,
    node: &'a Node,
    level: &Level,
) -> Result<BatchTask, Option<String>> {
    let fields = reader.fields(node, "a batch task", level);
    let own = reader.some_text(fields.get("buildspec"), "`buildspec` of a task");
    let own_place = fields
        .get("buildspec")
        .map_or(Place::START, |node| node.place);
    let variables = fields.get("env").map(|env| {
        let fields = reader.fields(env, "`env` of a task", &TASK_ENV);
        reader.variables(fields.get("variables"), "`env.variables` of a task")
    });
    let depend_on = fields
        .get("depend-on")
        .filter(|_| level.support("depend-on").is_some());
    let task = BatchTask {
        identifier: String::new(),
        place: node.place,
        depend_on: reader.texts(depend_on, "`depend-on`"),
        ignore_failure: reader.flag(fields.get("ignore-failure"), "`ignore-failure`"),
        variables: variables.unwrap_or_default(),
        buildspec: own.map(|path| (path, own_place)),
    };
    if !matches!(node.content, Content::Map(_)) {
        return Err(None);
    }
    let identifier = fields.get("identifier");
    let place = identifier.map_or(node.place, |node| node.place);
    let identifier = reader
        .some_text(identifier, "`identifier`")
        .unwrap_or_default();
    if identifier.trim().is_empty() {
        let message = "a batch task has no `identifier`";
        reader.say(Diagnostic::error(place, message).with_hint("add `identifier: NAME`"));
        return Err(None);
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if identifier.chars().count() > IDENTIFIER_CHARS_MAX || !identifier.chars().all(of_name) {
        let message = format!(
            "`identifier` has to be at most {IDENTIFIER_CHARS_MAX} letters, digits, `_`, `-` or `.`"
        );
        reader.error(place, message);
        return Err(Some(identifier));
    }
    Ok(BatchTask {
        identifier,
        place,
        ..task
    })
}
