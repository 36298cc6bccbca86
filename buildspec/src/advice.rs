//! What an unknown key was probably meant to be: a misspelt one, or one of another level.

use crate::{
    diagnostic::{Diagnostic, Severity, quoted},
    keys::{LEVELS, Level, PHASES},
    yaml::{Content, Entry},
};

/// Keys longer than this, in bytes, are compared with nothing: no known one comes near.
const COMPARED_BYTES_MAX: usize = 64;

/// The name among `names` that `text` is most similar to; `None` if none is similar enough to be meant.
pub(crate) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let spelt = plain_spelling(text);
    let distances = names.map(|name| (strsim::osa_distance(&spelt, &plain_spelling(name)), name));
    let (distance, name) = distances.min_by_key(|&(distance, _)| distance)?;
    // A third of the letters wrong is a typing mistake, more is another word.
    (distance <= spelt.chars().count().max(3) / 3).then_some(name)
}

/// `text` without what people mix up: case, hyphens, underscores.
fn plain_spelling(text: &str) -> String {
    let letters = text.chars().filter(|c| !matches!(c, '-' | '_' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

/// A remark about `entry`, whose key is unknown on `level`.
pub(crate) fn unknown_key(level: &Level, entry: &Entry) -> Diagnostic {
    let has_commands = matches!(&entry.value.content, Content::Map(entries)
        if entries.iter().any(|entry| entry.key == "commands"));
    let result = if has_commands {
        ", so its commands do not run"
    } else {
        ""
    };
    let message = format!("unknown key {} {}{result}", quoted(&entry.key), level.name);
    // Of all levels it is only this one whose names CodeBuild insists on.
    let severity = if level.path == PHASES.path {
        Severity::Error
    } else {
        Severity::Warning
    };
    Diagnostic {
        severity,
        hint: advice(level, entry),
        ..Diagnostic::warning(entry.place, message)
    }
}

fn advice(level: &Level, entry: &Entry) -> Option<String> {
    let key = entry.key.as_str();
    if key == "environment_variables" && level.path.is_empty() {
        return Some(
            "since version 0.2 it is called `env`, and what was `plaintext` in it `variables`"
                .to_owned(),
        );
    }
    let respelt = level
        .names()
        .find(|name| plain_spelling(name) == plain_spelling(key));
    if let Some(name) = respelt {
        return Some(format!("write it `{name}`"));
    }
    if let Some(home) = LEVELS.iter().find(|home| home.support(key).is_some()) {
        return Some(move_there(level, home, key));
    }
    if let Some((name, _)) = key
        .split_once(':')
        .filter(|(name, _)| level.support(name).is_some())
    {
        return Some(format!("write a space after the colon: `{name}: …`"));
    }
    if let Some(name) = nearest(key, level.names()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let is_text = matches!(entry.value.content, Content::Scalar { .. });
    if is_text && (level.path == "env" || level.path.is_empty() && is_variable_name(key)) {
        return Some("variables go deeper, under `env.variables`".to_owned());
    }
    let similar = LEVELS.iter().find_map(|home| {
        let name = home
            .names()
            .find(|name| plain_spelling(name) == plain_spelling(key))?;
        Some(move_there(level, home, name))
    });
    similar.or_else(|| all_keys(level))
}

/// Whether `key` is written as people write variables.
fn is_variable_name(key: &str) -> bool {
    key.chars()
        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// How to move `key` from `level` to the level `home` where it belongs.
fn move_there(level: &Level, home: &Level, key: &str) -> String {
    if home.path.is_empty() {
        return format!("`{key}` belongs at the top level: indent it like `version`");
    }
    let deeper = home.path.starts_with(level.path);
    let how = if deeper { "deeper" } else { "elsewhere" };
    format!("`{key}` belongs {how}, at `{}.{key}`", home.path)
}

/// What there is to choose from, where that is short.
fn all_keys(level: &Level) -> Option<String> {
    let names: Vec<String> = level.names().map(|name| format!("`{name}`")).collect();
    Some(format!("known {}: {}", level.name, names.join(", ")))
}

/// Where `text`, which should be a mapping, is `KEY:value` without a space, the repair.
pub(crate) fn missing_space(text: &str) -> Option<String> {
    let (key, value) = text.lines().next()?.split_once(':')?;
    let is_key = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_pair = is_key && !value.is_empty() && !value.starts_with("//");
    is_pair.then(|| {
        format!(
            "write a space after the colon: {}",
            quoted(&format!("{key}: {value}"))
        )
    })
}

/// How to write `value` after `lead` (`-` or `key:`), where YAML reads it as something else than a text.
pub(crate) fn in_quotes(lead: &str, value: &str) -> String {
    let lead = if lead.is_empty() {
        String::new()
    } else {
        format!("{lead} ")
    };
    if value.chars().count() > COMPARED_BYTES_MAX {
        return format!(
            "put it in quotes, or write `{lead}|` and the text on the next line, indented"
        );
    }
    let quotes = if !value.contains('\'') {
        '\''
    } else if !value.contains(['"', '\\']) {
        '"'
    } else {
        return format!(
            "write `{lead}|`, and on the next line, indented, {}",
            quoted(value)
        );
    };
    format!(
        "put it in quotes: {}",
        quoted(&format!("{lead}{quotes}{value}{quotes}"))
    )
}
