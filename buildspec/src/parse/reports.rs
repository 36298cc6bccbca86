//! The section `reports`.

use std::collections::BTreeMap;

use super::artifacts::patterns;
use crate::{
    diagnostic::{Diagnostic, quoted},
    keys::REPORT,
    reader::Reader,
    spec::{ReportFormat, ReportGroup},
    yaml::{Content, Entry, Node},
};

/// How many report groups there may be: CodeBuild's limit.
const GROUPS_MAX: usize = 5;

/// Reads `reports`.
pub(super) fn reports<'a>(
    reader: &mut Reader<'a>,
    node: Option<&'a Node>,
) -> BTreeMap<String, ReportGroup> {
    let Some(node) = node else {
        return BTreeMap::new();
    };
    let entries = reader.entries(node, "`reports`");
    if entries.len() > GROUPS_MAX {
        let message = format!(
            "`reports` has {} groups, at most {GROUPS_MAX} are possible",
            entries.len()
        );
        reader.error(node.place, message);
    }
    let mut groups = BTreeMap::new();
    for entry in entries.iter().take(GROUPS_MAX) {
        groups.extend(group(reader, entry).map(|group| (entry.key.clone(), group)));
    }
    groups
}

/// Reads a group; `None` after an error.
fn group<'a>(reader: &mut Reader<'a>, entry: &'a Entry) -> Option<ReportGroup> {
    let (name, node) = (quoted(&entry.key), &entry.value);
    let is_mapping = matches!(node.content, Content::Map(_));
    if !is_mapping && !node.is_null() {
        let message = format!(
            "report group {name} has to be a mapping, not {}",
            node.kind()
        );
        let hint = match REPORT.support(&entry.key) {
            Some(_) => {
                "it belongs to a report group: write the group's name above it, and indent it"
            }
            None => "write `files:` below it",
        };
        reader.say(Diagnostic::error(node.place, message).with_hint(hint));
        return None;
    }
    let fields = reader.fields(node, &format!("report group {name}"), &REPORT);
    let files = patterns(reader, fields.get("files"), "`files` of a report group");
    let group = ReportGroup {
        base_directory: reader.some_text(
            fields.get("base-directory"),
            "`base-directory` of a report group",
        ),
        discard_paths: reader.flag(
            fields.get("discard-paths"),
            "`discard-paths` of a report group",
        ),
        format: format(reader, fields.get("file-format")),
        files,
    };
    if group.files.is_empty() {
        let message = format!("report group {name} has no `files`");
        let hint = "add `files:` with patterns; `'**/*'` is everything";
        reader.say(Diagnostic::error(entry.place, message).with_hint(hint));
        return None;
    }
    Some(group)
}

fn format(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<ReportFormat> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Some(ReportFormat::default());
    };
    let text = reader.text(node, "`file-format` of a report group")?;
    let format = ReportFormat::named(&text);
    if format.is_none() {
        let words = ReportFormat::ALL.map(ReportFormat::as_str);
        reader.expect_word((&text, node.place), "format of reports", &words);
    }
    format
}
