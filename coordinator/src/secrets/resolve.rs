//! From what a buildspec names to the value that a variable gets. Pure, but for whom it asks.

use std::sync::Arc;

use protocol::{
    build::PhaseContext,
    name::{ProjectName, Team},
    secret::{
        DeliveredSecret, SECRETS_OF_UNIT_BYTES_MAX, SecretId, SecretRef, SecretStage, SecretStore,
        SecretValue, SecretsReply,
    },
};
use serde_json::Value;
use zeroize::Zeroize as _;

use super::provider::{FindError, FoundSecret, SecretProvider, WantedVersion};

/// Whose secrets may be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// Those of this team,
    pub(crate) team: &'a Team,
    /// and of this project of it.
    pub(crate) project: &'a ProjectName,
}

/// How ARNs of secrets and of parameters start.
const ARN: &str = "arn:";
/// How many parts of an ARN come before what it names: `arn:aws:ssm:REGION:ACCOUNT:`, and for a secret
/// `secret:` besides.
const ARN_PARTS_BEFORE: usize = 5;
/// What AWS adds to the name of a secret in its ARN: a hyphen and six characters.
const ARN_SUFFIX_BYTES: usize = 7;
/// How deep a JSON object is looked through for texts that are secrets by themselves. What is deeper is
/// masked with the whole only.
const DEPTH_MAX: usize = 8;

/// The names by which `id` may mean a secret, the best first: itself, or what an ARN ends in.
pub(super) fn names_of(id: &str) -> Vec<SecretId> {
    let mut names = Vec::new();
    let mut add = |name: &str| names.extend(name.parse::<SecretId>());
    if !id.starts_with(ARN) {
        add(id);
        return names;
    }
    let resource = id.splitn(ARN_PARTS_BEFORE + 1, ':').last();
    let resource = resource.unwrap_or_default();
    if let Some(parameter) = resource.strip_prefix("parameter") {
        // `parameter/NAME` stands for `NAME` and for `/NAME`.
        add(parameter);
        add(parameter.trim_start_matches('/'));
    } else if let Some(name) = resource.strip_prefix("secret:") {
        add(name);
        let end = name.len().saturating_sub(ARN_SUFFIX_BYTES);
        if let Some((name, suffix)) = name.split_at_checked(end)
            && suffix.starts_with('-')
        {
            add(name);
        }
    }
    names
}

/// The value that a variable gets of the secret that was found for it.
pub(super) fn delivered(
    reference: &SecretRef,
    found: &FoundSecret,
) -> Result<DeliveredSecret, FindError> {
    let value = match &reference.json_key {
        None => found.value.clone(),
        Some(key) => under(&found.value, key)?,
    };
    Ok(DeliveredSecret {
        variable: reference.variable.clone(),
        version: found.version.clone(),
        parts: texts_in(&value),
        value,
    })
}

/// What the first provider that knows the secret by one of its names says.
pub(super) fn first(
    providers: &[Arc<dyn SecretProvider>],
    owner: Owner<'_>,
    reference: &SecretRef,
) -> Result<FoundSecret, FindError> {
    let version = match (&reference.version, &reference.stage) {
        (Some(version), _) => WantedVersion::Id(version),
        (None, Some(stage)) => WantedVersion::Stage(stage),
        (None, None) => WantedVersion::Stage(SecretStage::AwsCurrent.as_str()),
    };
    for id in names_of(&reference.id) {
        for provider in providers {
            match provider.find(owner, &id, version) {
                Err(FindError::Unknown) => {}
                said => return said,
            }
        }
    }
    Err(FindError::Unknown)
}

/// What a JSON object has under a key: a text as it is, everything else as JSON has it.
fn under(value: &SecretValue, key: &str) -> Result<SecretValue, FindError> {
    let key = || key.to_owned();
    let no_object = || FindError::NoObject { key: key() };
    let mut whole: Value = serde_json::from_slice(value.expose()).map_err(|_| no_object())?;
    let Value::Object(object) = &mut whole else {
        wipe(whole);
        return Err(no_object());
    };
    let found = object.remove(&key());
    wipe(whole);
    let bytes = match found {
        None => return Err(FindError::NoKey { key: key() }),
        Some(Value::String(text)) => text.into_bytes(),
        Some(other) => {
            let text = other.to_string().into_bytes();
            wipe(other);
            text
        }
    };
    SecretValue::new(bytes).map_err(|why| FindError::NoSecret { key: key(), why })
}

/// The texts and numbers of a JSON object or array that are secrets by themselves: commands pick them out of it.
fn texts_in(value: &SecretValue) -> Vec<SecretValue> {
    let mut texts = Vec::new();
    if let Some(mut whole) = structure(value.expose()) {
        forget_engine(&mut whole);
        gather(whole, DEPTH_MAX, &mut texts);
    }
    texts
}

/// A JSON object or array; `None`: it is something else.
fn structure(text: &[u8]) -> Option<Value> {
    match serde_json::from_slice(text).ok()? {
        whole @ (Value::Object(_) | Value::Array(_)) => Some(whole),
        other => {
            wipe(other);
            None
        }
    }
}

/// Which database a secret is for is in each that AWS makes for one, and no secret; sources are full of it.
fn forget_engine(whole: &mut Value) {
    let is_engine = |value: &Value| value.as_str().is_some_and(|name| ENGINES.contains(&name));
    if let Value::Object(object) = whole
        && object.get(ENGINE).is_some_and(is_engine)
    {
        object.remove(ENGINE);
    }
}

/// Under which key that is, and what it may be.
const ENGINE: &str = "engine";
const ENGINES: [&str; 8] = [
    "postgres",
    "mysql",
    "mariadb",
    "oracle",
    "sqlserver",
    "db2",
    "mongo",
    "redshift",
];

fn gather(value: Value, depth: usize, texts: &mut Vec<SecretValue>) {
    match value {
        Value::String(text) => {
            // A structure may be in a text of another one.
            let within = structure(text.as_bytes()).filter(|_| 0 < depth);
            texts.extend(SecretValue::new(text.into_bytes()));
            within
                .into_iter()
                .for_each(|within| gather(within, depth - 1, texts));
        }
        Value::Number(number) => texts.extend(SecretValue::new(number.to_string().into_bytes())),
        Value::Array(values) if 0 < depth => {
            let values = values.into_iter();
            values.for_each(|value| gather(value, depth - 1, texts));
        }
        Value::Object(values) if 0 < depth => {
            let values = values.into_iter();
            values.for_each(|(_, value)| gather(value, depth - 1, texts));
        }
        other => wipe(other),
    }
}

/// Wipes every text in a value. Its depth is what the parser lets through.
fn wipe(value: Value) {
    match value {
        Value::String(mut text) => text.zeroize(),
        Value::Array(values) => values.into_iter().for_each(wipe),
        Value::Object(values) => values.into_iter().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Checks that the values fit in the environment of a process.
pub(super) fn check_room(secrets: &[DeliveredSecret]) -> Result<(), PhaseContext> {
    let bytes = secrets.iter().map(|secret| secret.value.expose().len());
    let bytes: usize = bytes.sum();
    if bytes <= SECRETS_OF_UNIT_BYTES_MAX {
        return Ok(());
    }
    Err(client_error(format!(
        "the secrets of the build have {bytes} bytes together, at most {SECRETS_OF_UNIT_BYTES_MAX} are \
         possible"
    )))
}

/// What a build is told whose secret cannot be had: as CodeBuild says it, as far as that is known.
pub(super) fn refused(reference: &SecretRef, error: &FindError) -> SecretsReply {
    let SecretRef {
        variable,
        id,
        store,
        ..
    } = reference;
    const MANAGER: &str =
        "Secrets Manager Error: ResourceNotFoundException: Secrets Manager can't find";
    let said = match (store, error) {
        (SecretStore::ParameterStore, FindError::Unknown) => "Parameter does not exist".to_owned(),
        (SecretStore::SecretsManager, FindError::Unknown) => {
            format!("{MANAGER} the specified secret.")
        }
        (_, FindError::NoStage { stage }) => {
            format!("{MANAGER} the specified secret value for staging label: {stage}")
        }
        (_, FindError::NoVersion { version }) => {
            format!("{MANAGER} the specified secret value for VersionId: {version}")
        }
        (_, error) => error.to_string(),
    };
    SecretsReply::Unresolved(client_error(format!(
        "{said} ({id}, for variable {variable})"
    )))
}

fn client_error(message: String) -> PhaseContext {
    PhaseContext {
        status_code: "CLIENT_ERROR".to_owned(),
        message,
    }
}
