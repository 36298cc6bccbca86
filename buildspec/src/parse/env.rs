//! The sections `env`, `environment_variables` and `proxy`.

use std::collections::BTreeMap;

use protocol::job::Shell;

use crate::{
    diagnostic::{Diagnostic, Place, quoted},
    keys::{ENV, ENVIRONMENT_VARIABLES, PROXY},
    reader::{Fields, Reader},
    spec::{Proxy, Secret, SecretName, SecretStore, WindowsShell},
    yaml::{Entry, Node},
};

/// What `env` says.
#[derive(Debug, Default)]
pub(super) struct Env {
    pub shell: Shell,
    pub windows_shell: Option<WindowsShell>,
    pub variables: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret>,
    pub exported: Vec<String>,
    pub git_credential_helper: bool,
}

/// The shells that people name, and which they are.
const SHELLS: &[(&str, Shell)] = &[
    ("sh", Shell::Sh),
    ("/bin/sh", Shell::Sh),
    ("/usr/bin/sh", Shell::Sh),
    ("bash", Shell::Bash),
    ("/bin/bash", Shell::Bash),
    ("/usr/bin/bash", Shell::Bash),
];

/// The shells of Windows, without `.exe`.
const WINDOWS_SHELLS: &[&str] = &["powershell", "pwsh", "cmd"];

/// What is no shell, but stands in CodeBuild's reference where one belongs.
const PLACEHOLDER: &str = "shell-tag";

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
        (env.shell, env.windows_shell) = shell(reader, fields.get("shell"));
        env.variables
            .extend(reader.variables(fields.get("variables"), "`env.variables`"));
        read_secrets(reader, &mut env, &fields, SecretStore::ParameterStore);
        read_secrets(reader, &mut env, &fields, SecretStore::SecretsManager);
        env.exported = exported(reader, fields.get("exported-variables"));
        let helper = fields.get("git-credential-helper");
        env.git_credential_helper = reader.flag(helper, "`env.git-credential-helper`");
    }
    env
}

/// Reads `proxy`.
pub(super) fn proxy<'a>(reader: &mut Reader<'a>, node: Option<&'a Node>) -> Proxy {
    let Some(node) = node else {
        return Proxy::default();
    };
    let fields = reader.fields(node, "`proxy`", &PROXY);
    Proxy {
        upload_artifacts: reader.flag(fields.get("upload-artifacts"), "`proxy.upload-artifacts`"),
        logs: reader.flag(fields.get("logs"), "`proxy.logs`"),
    }
}

fn shell(reader: &mut Reader<'_>, node: Option<&Node>) -> (Shell, Option<WindowsShell>) {
    let Some(text) = reader.some_text(node, "`env.shell`") else {
        return Default::default();
    };
    let place = node.map_or(Place::START, |node| node.place);
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == text.trim()) {
        return (*shell, None);
    }
    let name = text.trim().to_ascii_lowercase();
    if WINDOWS_SHELLS.contains(&name.trim_end_matches(".exe")) {
        let message = format!(
            "`env.shell` is {}, a shell of Windows, and the farm's workers run Linux",
            quoted(&text)
        );
        let hint = "on the farm it cannot run; on Linux, use `bash`";
        reader.say(Diagnostic::warning(place, message).with_hint(hint));
        return (Shell::default(), Some(WindowsShell { name: text, place }));
    }
    let message = format!(
        "`env.shell` has to be `bash` or `/bin/sh`, not {}",
        quoted(&text)
    );
    let hint = if name == PLACEHOLDER {
        "it stands for the name of a shell: use `bash`, or leave it out for `/bin/sh`"
    } else {
        "use `bash`, or leave it out for `/bin/sh`"
    };
    reader.say(Diagnostic::error(place, message).with_hint(hint));
    Default::default()
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
        let Some(secret) = secret(reader, entry, store) else {
            continue;
        };
        // Where both name a variable, CodeBuild's order is unknown; the secret is what it asks for.
        let twice = env.variables.contains_key(&entry.key);
        if env.secrets.insert(entry.key.clone(), secret).is_some() || twice {
            let message = format!(
                "variable {} has its value in two places; the one in {what} counts",
                quoted(&entry.key)
            );
            reader.say(Diagnostic::warning(entry.place, message).with_hint("take one of them out"));
        }
    }
}

fn secret(reader: &mut Reader<'_>, entry: &Entry, store: SecretStore) -> Option<Secret> {
    let what = format!("the value of {}", quoted(&entry.key));
    let reference = reader.text(&entry.value, &what)?;
    let name = match store {
        SecretStore::ParameterStore => Ok(SecretName {
            id: reference.trim().to_owned(),
            ..SecretName::default()
        }),
        SecretStore::SecretsManager => SecretName::parse(&reference),
    };
    let mistake = match name {
        Ok(name) if !name.id.is_empty() => {
            return Some(Secret {
                store,
                reference,
                name,
                place: entry.place,
            });
        }
        Ok(_) => "there is no name of a parameter in it".to_owned(),
        Err(error) => error.to_string(),
    };
    let form = match store {
        SecretStore::ParameterStore => "the name of a parameter, like `/app/password`",
        SecretStore::SecretsManager => "`secret-id:json-key:version-stage:version-id`",
    };
    let message = format!("{what} names no secret: {mistake}");
    reader.say(
        Diagnostic::error(entry.value.place, message).with_hint(format!("its form is {form}")),
    );
    None
}

/// The names of variables that are told to whoever started the build.
fn exported(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<String> {
    let names = reader.texts(node, "`env.exported-variables`");
    for (name, place) in &names {
        if name.starts_with("AWS_") {
            let message = format!(
                "variable {} cannot be exported: its name starts with AWS_",
                quoted(name)
            );
            reader.say(Diagnostic::warning(*place, message));
        }
    }
    names.into_iter().map(|(name, _)| name).collect()
}
