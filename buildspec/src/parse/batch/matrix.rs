//! `build-matrix` and `build-fanout`: a few lines that stand for many tasks.

use std::collections::BTreeSet;

use super::task::{COMPUTE_TYPES, environment};
use crate::{
    diagnostic::{Diagnostic, Place, quoted},
    keys::{FANOUT, MATRIX, MATRIX_DYNAMIC, MATRIX_DYNAMIC_ENV, MATRIX_STATIC},
    reader::Reader,
    spec::{BatchTask, Fanout, Matrix},
    yaml::{Content, Entry, Node},
};

/// Reads `build-matrix`; `None` after an error.
pub(super) fn matrix<'a>(reader: &mut Reader<'a>, form: &'a Entry) -> Option<Matrix> {
    let fields = reader.fields(&form.value, "`batch.build-matrix`", &MATRIX);
    let fixed = fields.get("static").map(|node| fixed(reader, node));
    let mut matrix = Matrix {
        place: form.place,
        fixed: fixed.unwrap_or_default(),
        ..Matrix::default()
    };
    if let Some(node) = fields.get("dynamic") {
        read_dynamic(reader, node, &mut matrix);
    }
    let has_list = fields
        .get("dynamic")
        .is_some_and(|node| matches!(node.content, Content::List(_)));
    if matrix.count() == 1 && !has_list {
        let message = "`build-matrix` stands for one build only";
        let hint = "give a variable several values: `dynamic: {env: {variables: {NAME: [a, b]}}}`";
        reader.say(Diagnostic::warning(form.place, message).with_hint(hint));
    }
    matches!(form.value.content, Content::Map(_)).then_some(matrix)
}

/// What all tasks have.
fn fixed<'a>(reader: &mut Reader<'a>, node: &'a Node) -> BatchTask {
    let fields = reader.fields(node, "`build-matrix.static`", &MATRIX_STATIC);
    let env = fields.get("env");
    let (environment, variables) = env.map(|env| environment(reader, env)).unwrap_or_default();
    BatchTask {
        ignore_failure: reader.flag(fields.get("ignore-failure"), "`ignore-failure`"),
        environment,
        variables,
        ..BatchTask::default()
    }
}

/// What tells the tasks apart.
fn read_dynamic<'a>(reader: &mut Reader<'a>, node: &'a Node, matrix: &mut Matrix) {
    if matches!(node.content, Content::List(_)) {
        let message = "`build-matrix.dynamic` has to be a mapping, not a list";
        let hint = "a list of tasks goes under `batch.build-list`; a matrix has lists of values";
        reader.say(Diagnostic::error(node.place, message).with_hint(hint));
        return;
    }
    let fields = reader.fields(node, "`build-matrix.dynamic`", &MATRIX_DYNAMIC);
    matrix.buildspecs = choices(reader, fields.entry("buildspec"));
    let Some(env) = fields.get("env") else {
        return;
    };
    let fields = reader.fields(env, "`build-matrix.dynamic.env`", &MATRIX_DYNAMIC_ENV);
    let compute_types = choices(reader, fields.entry("compute-type"));
    for (word, place) in &compute_types {
        reader.expect_word((word, *place), "compute type", COMPUTE_TYPES);
    }
    let texts = |choices: Vec<(String, Place)>| choices.into_iter().map(|(text, _)| text).collect();
    matrix.compute_types = texts(compute_types);
    matrix.images = texts(choices(reader, fields.entry("image")));
    let Some(variables) = fields.get("variables") else {
        return;
    };
    for entry in reader.entries(variables, "`build-matrix.dynamic.env.variables`") {
        reader.check_variable_name(entry);
        let values = texts(choices(reader, Some(entry)));
        if !values.is_empty() {
            matrix.variables.push((entry.key.clone(), values));
        }
    }
}

/// The values of a dimension; one text in place of a list of one. An empty list counts as none.
fn choices(reader: &mut Reader<'_>, entry: Option<&Entry>) -> Vec<(String, Place)> {
    let Some(entry) = entry else {
        return Vec::new();
    };
    let what = quoted(&entry.key);
    let choices = reader.texts(Some(&entry.value), &what);
    let is_read = !matches!(entry.value.content, Content::Map(_));
    if choices.is_empty() && is_read {
        let message = format!("{what} of `build-matrix` has no values, so it does not count");
        reader.say(Diagnostic::warning(entry.place, message));
    }
    let mut seen = BTreeSet::new();
    for (choice, place) in choices.iter().filter(|(choice, _)| !seen.insert(choice)) {
        let message = format!("{what} of `build-matrix` has {} twice", quoted(choice));
        reader.say(Diagnostic::warning(*place, message).with_hint("take one of them out"));
    }
    choices
}

/// Reads `build-fanout`; `None` after an error.
pub(super) fn fanout<'a>(reader: &mut Reader<'a>, form: &'a Entry) -> Option<Fanout> {
    let fields = reader.fields(&form.value, "`batch.build-fanout`", &FANOUT);
    let ignore_failure = reader.flag(fields.get("ignore-failure"), "`ignore-failure`");
    let Some(parallelism) = fields.get("parallelism").filter(|node| !node.is_null()) else {
        if matches!(form.value.content, Content::Map(_)) || form.value.is_null() {
            let message = "`build-fanout` has no `parallelism`";
            let hint = "add `parallelism: 4`, the number of builds that share the tests";
            reader.say(Diagnostic::error(form.place, message).with_hint(hint));
        }
        return None;
    };
    Some(Fanout {
        place: form.place,
        parallelism: reader.count(parallelism, "`build-fanout.parallelism`")?,
        ignore_failure,
    })
}
