//! The sections `artifacts` and `cache`.

use std::collections::BTreeMap;

use protocol::{artifact::ArtifactsSpec, cache_spec::CacheSpec, job::SECONDARY_ARTIFACTS_MAX};

use crate::{
    diagnostic::{Diagnostic, Place, quoted},
    keys::{ARTIFACTS, CACHE, SECONDARY_ARTIFACT},
    reader::{Fields, Reader},
    spec::{Artifacts, Cache, CacheAction, Published},
    yaml::{Content, Node},
};

/// How long the identifier of a secondary artifact may be: `CodeBuild`'s limit.
const IDENTIFIER_CHARS_MAX: usize = 128;
/// How many fallback keys there may be: CodeBuild's limit.
const FALLBACK_KEYS_MAX: usize = 5;

/// Reads `artifacts`; `None` for nothing.
pub(super) fn artifacts<'a>(reader: &mut Reader<'a>, node: &'a Node) -> Option<Artifacts> {
    if node.is_null() {
        reader.say(Diagnostic::warning(
            node.place,
            "`artifacts` is empty, so nothing is published",
        ));
        return None;
    }
    let fields = reader.fields(node, "`artifacts`", &ARTIFACTS);
    let secondary = fields
        .get("secondary-artifacts")
        .map(|node| secondary_artifacts(reader, node));
    let primary = published(reader, (node, &fields), "artifacts")?;
    Some(Artifacts {
        primary,
        secondary: secondary.unwrap_or_default(),
    })
}

fn secondary_artifacts<'a>(reader: &mut Reader<'a>, node: &'a Node) -> BTreeMap<String, Published> {
    let what = "`artifacts.secondary-artifacts`";
    let entries = reader.entries(node, what);
    if entries.len() > SECONDARY_ARTIFACTS_MAX {
        let message = format!(
            "{what} has {} artifacts, at most {SECONDARY_ARTIFACTS_MAX} are possible",
            entries.len()
        );
        reader.error(node.place, message);
    }
    let mut artifacts = BTreeMap::new();
    for entry in entries.iter().take(SECONDARY_ARTIFACTS_MAX) {
        let name = format!("artifact {}", quoted(&entry.key));
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let length = entry.key.chars().count();
        if !entry.key.chars().all(of_name) || length == 0 || IDENTIFIER_CHARS_MAX < length {
            let message = format!(
                "{name}: an identifier has at most {IDENTIFIER_CHARS_MAX} letters, digits, `_` or `-`"
            );
            reader.error(entry.place, message);
            continue;
        }
        let fields = reader.fields(&entry.value, &name, &SECONDARY_ARTIFACT);
        let path = format!("secondary-artifacts.{}", entry.key);
        let of = published(reader, (&entry.value, &fields), &path);
        artifacts.extend(of.map(|of| (entry.key.clone(), of)));
    }
    artifacts
}

/// Reads one artifact; `None` after an error. `path` is the way to its keys.
fn published(
    reader: &mut Reader<'_>,
    (node, fields): (&Node, &Fields<'_>),
    path: &str,
) -> Option<Published> {
    let at = |key: &str| format!("`{path}.{key}`");
    let spec = ArtifactsSpec {
        files: patterns(reader, fields.get("files"), &at("files")),
        name: reader.some_text(fields.get("name"), &at("name")),
        exclude_paths: patterns(reader, fields.get("exclude-paths"), &at("exclude-paths")),
        base_directory: reader.some_text(fields.get("base-directory"), &at("base-directory")),
        discard_paths: reader.flag(fields.get("discard-paths"), &at("discard-paths")),
        enable_symlinks: false,
    };
    let published = Published {
        enable_symlinks: reader.flag(fields.get("enable-symlinks"), &at("enable-symlinks")),
        s3_prefix: reader.some_text(fields.get("s3-prefix"), &at("s3-prefix")),
        spec,
    };
    if !published.spec.files.is_empty() {
        return Some(published);
    }
    let is_list_there = fields
        .get("files")
        .is_some_and(|files| matches!(files.content, Content::Map(_)));
    if matches!(node.content, Content::Map(_)) && !is_list_there || node.is_null() {
        let hint = "add `files:` with patterns; `'**/*'` is everything";
        let message = format!("`{path}` has no `files`, so there is nothing to publish");
        reader.say(Diagnostic::error(node.place, message).with_hint(hint));
    }
    None
}

/// Patterns of files; empty ones do not count.
pub(super) fn patterns(reader: &mut Reader<'_>, node: Option<&Node>, what: &str) -> Vec<String> {
    let texts = reader.texts(node, what).into_iter().map(|(text, _)| text);
    texts.filter(|text| !text.trim().is_empty()).collect()
}

/// Reads `cache`; `None` if it names no paths.
pub(super) fn cache<'a>(reader: &mut Reader<'a>, node: &'a Node) -> Option<Cache> {
    let fields = reader.fields(node, "`cache`", &CACHE);
    let mut spec = CacheSpec {
        fallback_keys: Vec::new(),
        key: reader.some_text(fields.get("key"), "`cache.key`"),
        paths: patterns(reader, fields.get("paths"), "`cache.paths`"),
    };
    spec.fallback_keys = fallback_keys(reader, fields.get("fallback-keys"), &spec);
    let action = cache_action(reader, fields.get("action"));
    if !matches!(node.content, Content::Map(_)) && !node.is_null() {
        return None;
    }
    if spec.paths.is_empty() {
        let message = "`cache` has no `paths`: what lock files select is cached";
        reader.say(Diagnostic::warning(node.place, message));
        return None;
    }
    Some(Cache { spec, action })
}

fn fallback_keys(reader: &mut Reader<'_>, node: Option<&Node>, spec: &CacheSpec) -> Vec<String> {
    let what = "`cache.fallback-keys`";
    let keys = patterns(reader, node, what);
    let place = node.map_or(Place::START, |node| node.place);
    if keys.len() > FALLBACK_KEYS_MAX {
        let message = format!(
            "{what} has {} keys, at most {FALLBACK_KEYS_MAX} are possible",
            keys.len()
        );
        reader.error(place, message);
    }
    if !keys.is_empty() && spec.key.is_none() {
        let message = format!("{what} count only where there is a `key`");
        reader.say(Diagnostic::warning(place, message).with_hint("add `cache.key`"));
    }
    keys
}

fn cache_action(reader: &mut Reader<'_>, node: Option<&Node>) -> CacheAction {
    let Some(text) = reader.some_text(node, "`cache.action`") else {
        return CacheAction::default();
    };
    match text.trim() {
        "restore" => CacheAction::Restore,
        "save" => CacheAction::Save,
        _ => {
            let message = format!(
                "`cache.action` has to be `restore` or `save`, not {}",
                quoted(&text)
            );
            let place = node.map_or(Place::START, |node| node.place);
            reader.say(Diagnostic::error(place, message).with_hint("leave it out for both"));
            CacheAction::default()
        }
    }
}
