//! What an unknown key was probably meant to be: a misspelt one, or one of another level.

use crate::{
    diagnostic::{Diagnostic, Place, quoted},
    keys::{LEVELS, Level},
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
    let message = format!("unknown key {} {}", quoted(&entry.key), level.name);
    Diagnostic {
        hint: advice(level, entry),
        ..Diagnostic::warning(entry.place, message)
    }
}

fn advice(level: &Level, entry: &Entry) -> Option<String> {
    let key = entry.key.as_str();
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
    if level.path == "env" && is_text && !entry.value.is_null() {
        return Some("variables go one level deeper, under `env.variables`".to_owned());
    }
    let similar = LEVELS.iter().find_map(|home| {
        let name = home
            .names()
            .find(|name| plain_spelling(name) == plain_spelling(key))?;
        Some(move_there(level, home, name))
    });
    similar.or_else(|| all_keys(level))
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
    let (key, value) = text.split_once(':')?;
    let is_key = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_pair = is_key && !value.is_empty() && !value.starts_with("//") && !text.contains('\n');
    is_pair.then(|| {
        format!(
            "write a space after the colon: {}",
            quoted(&format!("{key}: {value}"))
        )
    })
}

/// Where a command that was read as a mapping or list is `line`, how to write it.
pub(crate) fn quote_command(line: &str, place: Place) -> String {
    let from: String = line.chars().skip(place.column.saturating_sub(1)).collect();
    let command = from.trim();
    if command.contains('\n') || command.chars().count() > COMPARED_BYTES_MAX {
        return "put it in quotes, or write `- |` and the command on the next line, indented"
            .to_owned();
    }
    let in_quotes = if !command.contains('\'') {
        format!("- '{command}'")
    } else if !command.contains(['"', '\\']) {
        format!("- \"{command}\"")
    } else {
        return format!(
            "write `- |`, and on the next line, indented, {}",
            quoted(command)
        );
    };
    format!("put it in quotes: {}", quoted(&in_quotes))
}
