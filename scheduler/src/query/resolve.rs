//! Which build somebody means.

use protocol::{build::BuildId, name::ProjectName};

use crate::{query::Scope, state::State};

/// Why a text names no build.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// None has this id or number, or none that the asker may see. The caller lists builds.
    #[error("no build is called `{text}`")]
    Unknown {
        /// The text.
        text: String,
    },
    /// Several ids start so. The caller gives more digits.
    #[error("`{text}` is the beginning of several build ids, like {first} and {second}")]
    Ambiguous {
        /// The text.
        text: String,
        /// One of them.
        first: BuildId,
        /// Another.
        second: BuildId,
    },
}

/// The build in `scope` that `text` means: its id, a beginning of its id that is no other's, or
/// `<project>#<number>`.
///
/// # Errors
///
/// If there is none, or more than one.
pub fn resolve(state: &State, scope: &Scope, text: &str) -> Result<BuildId, ResolveError> {
    let found = match text.split_once('#') {
        Some((project, number)) => by_number(state, scope, project, number),
        None => by_prefix(state, scope, text),
    };
    let unknown = || ResolveError::Unknown {
        text: text.to_owned(),
    };
    let mut found = found.into_iter();
    let first = found.next().ok_or_else(unknown)?;
    match found.next() {
        None => Ok(first),
        Some(second) => Err(ResolveError::Ambiguous {
            text: text.to_owned(),
            first,
            second,
        }),
    }
}

/// Up to two builds of that number; several teams may have a project of one name.
fn by_number(state: &State, scope: &Scope, project: &str, number: &str) -> Vec<BuildId> {
    let (Ok(number), Ok(project)) = (number.parse::<u64>(), project.parse::<ProjectName>()) else {
        return Vec::new();
    };
    let same = state.ledger.index.numbers.get(&(project, number));
    let same = same.into_iter().flatten().map(|(_, id)| *id);
    let visible = same.filter(|id| scope.contains(&state.ledger.builds[id]));
    visible.take(2).collect()
}

/// Up to two builds whose ids start so.
fn by_prefix(state: &State, scope: &Scope, text: &str) -> Vec<BuildId> {
    // `BuildId`'s order is that of its text, so those that start alike stand together.
    let digits = text.replace('-', "");
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.is_empty() || 32 < digits.len() || !is_hex {
        return Vec::new();
    }
    let bound = |fill: &str| {
        let padded = format!("{digits}{}", fill.repeat(32 - digits.len()));
        u128::from_str_radix(&padded, 16).ok().map(BuildId)
    };
    let (Some(least), Some(greatest)) = (bound("0"), bound("f")) else {
        return Vec::new();
    };
    let near = state.ledger.builds.range(least..=greatest);
    near.filter(|(id, build)| id.to_string().starts_with(text) && scope.contains(build))
        .map(|(id, _)| *id)
        .take(2)
        .collect()
}
