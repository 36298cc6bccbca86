//! The tasks of `build-list` and `build-graph`, and what a task runs on.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    diagnostic::{Diagnostic, Place},
    keys::{Level, TASK_ENV},
    plan,
    reader::Reader,
    spec::{BatchTask, TaskEnvironment},
    yaml::{Content, Entry, Node},
};

/// How long the identifier of a task may be, in characters: CodeBuild's limit.
const IDENTIFIER_CHARS_MAX: usize = 128;
/// CodeBuild's sizes of machines.
pub(super) const COMPUTE_TYPES: &[&str] = &[
    "BUILD_GENERAL1_SMALL",
    "BUILD_GENERAL1_MEDIUM",
    "BUILD_GENERAL1_LARGE",
    "BUILD_GENERAL1_XLARGE",
    "BUILD_GENERAL1_2XLARGE",
    "BUILD_LAMBDA_1GB",
    "BUILD_LAMBDA_2GB",
    "BUILD_LAMBDA_4GB",
    "BUILD_LAMBDA_8GB",
    "BUILD_LAMBDA_10GB",
    "ATTRIBUTE_BASED_COMPUTE",
    "CUSTOM_INSTANCE_TYPE",
];
/// CodeBuild's systems.
const SYSTEMS: &[&str] = &[
    "LINUX_CONTAINER",
    "LINUX_GPU_CONTAINER",
    "LINUX_LAMBDA_CONTAINER",
    "LINUX_EC2",
    "ARM_CONTAINER",
    "ARM_LAMBDA_CONTAINER",
    "ARM_EC2",
    "WINDOWS_CONTAINER",
    "WINDOWS_SERVER_2019_CONTAINER",
    "WINDOWS_SERVER_2022_CONTAINER",
    "WINDOWS_EC2",
    "MAC_ARM",
];

/// Reads a list of tasks.
pub(super) fn tasks<'a>(reader: &mut Reader<'a>, form: &'a Entry, level: &Level) -> Vec<BatchTask> {
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
    let env = fields.get("env");
    let (environment, variables) = env.map(|env| environment(reader, env)).unwrap_or_default();
    let depend_on = fields
        .get("depend-on")
        .filter(|_| level.support("depend-on").is_some());
    let task = BatchTask {
        identifier: String::new(),
        place: node.place,
        depend_on: reader.texts(depend_on, "`depend-on`"),
        ignore_failure: reader.flag(fields.get("ignore-failure"), "`ignore-failure`"),
        debug_session: reader.flag(fields.get("debug-session"), "`debug-session`"),
        environment,
        variables,
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

/// What `env` of a task says: on what it runs, and its variables.
pub(super) fn environment<'a>(
    reader: &mut Reader<'a>,
    node: &'a Node,
) -> (TaskEnvironment, BTreeMap<String, String>) {
    let fields = reader.fields(node, "`env` of a task", &TASK_ENV);
    let mut text = |key: &str| reader.some_text(fields.get(key), &format!("`{key}` of a task"));
    let (compute_type, fleet, image, system) = (
        text("compute-type"),
        text("fleet"),
        text("image"),
        text("type"),
    );
    for (key, word, (kind, words)) in [
        (
            "compute-type",
            &compute_type,
            ("compute type", COMPUTE_TYPES),
        ),
        ("type", &system, ("type of environment", SYSTEMS)),
    ] {
        if let (Some(word), Some(node)) = (word, fields.get(key)) {
            reader.expect_word((word, node.place), kind, words);
        }
    }
    if let (Some(_), Some(_), Some(place)) = (&compute_type, &fleet, fields.entry("fleet")) {
        let message = "a task has either a `fleet` or a `compute-type`, not both";
        reader.say(Diagnostic::error(place.place, message).with_hint("take one of them out"));
    }
    let environment = TaskEnvironment {
        compute_type,
        fleet,
        image,
        system,
        privileged_mode: reader.flag(fields.get("privileged-mode"), "`privileged-mode` of a task"),
    };
    let variables = reader.variables(fields.get("variables"), "`env.variables` of a task");
    (environment, variables)
}
