//! The sections `env`, `artifacts` and `cache`.

use std::collections::BTreeMap;

use protocol::{artifact::ArtifactsSpec, cache_spec::CacheSpec, job::Shell};

use super::SHELLS;
use crate::{
    diagnostic::{Diagnostic, Place, quoted},
    keys::{ARTIFACTS, CACHE, ENV, ENVIRONMENT_VARIABLES},
    reader::{Fields, Reader},
    spec::{Cache, CacheAction, Secret, SecretStore},
    yaml::{Content, Node},
};

/// What `env` says.
#[derive(Debug, Default)]
pub(super) struct Env {
    pub shell: Shell,
    pub variables: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret>,
}

/// Reads `env`, and what version 0.1 has in its place.
pub(super) fn env<'a>(reader: &mut Reader<'a>, top: &Fields<'a>) -> Env {
    let mut env = Env::default();
    if let Some(node) = top.get("environment_variables") {
        let fields = reader.fields(node, "`environment_variables`", &ENVIRONMENT_VARIABLES);
        for key in ["plaintext", "variables"] {
            let what = format!("`environment_variables.{key}`");
            env.variables
                .extend(reader.variables(fields.get(key), &what));
        }
        read_secrets(reader, &mut env, &fields, SecretStore::ParameterStore);
    }
    if let Some(node) = top.get("env") {
        let fields = reader.fields(node, "`env`", &ENV);
        env.shell = shell(reader, fields.get("shell"));
        env.variables
            .extend(reader.variables(fields.get("variables"), "`env.variables`"));
        read_secrets(reader, &mut env, &fields, SecretStore::ParameterStore);
        read_secrets(reader, &mut env, &fields, SecretStore::SecretsManager);
    }
    env
}

fn shell(reader: &mut Reader<'_>, node: Option<&Node>) -> Shell {
    let Some(text) = reader.some_text(node, "`env.shell`") else {
        return Shell::default();
    };
    let place = node.map_or(Place::START, |node| node.place);
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == text.trim()) {
        return *shell;
    }
    let name = text.to_ascii_lowercase();
    let of_windows = ["powershell", "pwsh", "cmd"]
        .iter()
        .any(|shell| name.contains(shell));
    let message = if of_windows {
        format!(
            "`env.shell` is {}, and the farm's workers run Linux",
            quoted(&text)
        )
    } else {
        format!(
            "`env.shell` has to be `bash` or `/bin/sh`, not {}",
            quoted(&text)
        )
    };
    reader.say(
        Diagnostic::error(place, message).with_hint("use `bash`, or leave it out for `/bin/sh`"),
    );
    Shell::default()
}

fn read_secrets<'a>(
    reader: &mut Reader<'a>,
    env: &mut Env,
    fields: &Fields<'a>,
    store: SecretStore,
) {
    let what = format!("`{}`", store.key());
    let Some(node) = fields.get(store.key()) else {
        return;
    };
    for entry in reader.entries(node, &what) {
        reader.check_variable_name(entry);
        let what = format!("the value of {}", quoted(&entry.key));
        let Some(reference) = reader.text(&entry.value, &what) else {
            continue;
        };
        let place = entry.place;
        // Where both name a variable, CodeBuild's order is unknown; the secret is what it asks for.
        env.variables.remove(&entry.key);
        let secret = Secret {
            store,
            reference,
            place,
        };
        env.secrets.insert(entry.key.clone(), secret);
    }
}

/// Reads `artifacts`; `None` for nothing.
pub(super) fn artifacts<'a>(reader: &mut Reader<'a>, node: &'a Node) -> Option<ArtifactsSpec> {
    if node.is_null() {
        reader.say(Diagnostic::warning(
            node.place,
            "`artifacts` is empty, so nothing is published",
        ));
        return None;
    }
    let fields = reader.fields(node, "`artifacts`", &ARTIFACTS);
    let files = patterns(reader, fields.get("files"), "`artifacts.files`");
    let spec = ArtifactsSpec {
        name: reader.some_text(fields.get("name"), "`artifacts.name`"),
        exclude_paths: patterns(
            reader,
            fields.get("exclude-paths"),
            "`artifacts.exclude-paths`",
        ),
        base_directory: reader
            .some_text(fields.get("base-directory"), "`artifacts.base-directory`"),
        discard_paths: reader.flag(fields.get("discard-paths"), "`artifacts.discard-paths`"),
        files,
    };
    if spec.files.is_empty() {
        let is_mapping = matches!(node.content, Content::Map(_));
        if is_mapping && fields.get("secondary-artifacts").is_none() {
            let hint = "add `files:` with patterns; `'**/*'` is everything";
            let message = "`artifacts` has no `files`, so there is nothing to publish";
            reader.say(Diagnostic::error(node.place, message).with_hint(hint));
        }
        return None;
    }
    Some(spec)
}

/// Patterns of files; empty ones do not count.
fn patterns(reader: &mut Reader<'_>, node: Option<&Node>, what: &str) -> Vec<String> {
    let texts = reader.texts(node, what).into_iter().map(|(text, _)| text);
    texts.filter(|text| !text.trim().is_empty()).collect()
}

/// Reads `cache`; `None` if it names no paths.
pub(super) fn cache<'a>(reader: &mut Reader<'a>, node: &'a Node) -> Option<Cache> {
    let fields = reader.fields(node, "`cache`", &CACHE);
    let spec = CacheSpec {
        key: reader.some_text(fields.get("key"), "`cache.key`"),
        paths: patterns(reader, fields.get("paths"), "`cache.paths`"),
    };
    let action = cache_action(reader, fields.get("action"));
    if !matches!(node.content, Content::Map(_)) && !node.is_null() {
        return None;
    }
    if spec.paths.is_empty() {
        let message = "`cache` has no `paths`, so nothing is cached";
        reader.say(Diagnostic::warning(node.place, message));
        return None;
    }
    Some(Cache { spec, action })
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
