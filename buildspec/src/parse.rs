//! From text to a buildspec, with all mistakes in one pass.
//!
//! Errors are what CodeBuild rejects, and what would run something else than CodeBuild; what it accepts
//! but is surely a mistake is a warning.

mod artifacts;
mod batch;
mod env;
mod phases;
mod reports;

use crate::{
    diagnostic::{Diagnostic, Place, Severity, quoted},
    input,
    keys::{TOP, TOP_0_1},
    reader::{Fields, Reader},
    spec::{BuildSpec, Version},
    syntax,
    yaml::{self, Content, Node, ReadError},
};

/// What came of reading a buildspec.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// The buildspec; `None` if, and only if, one of the diagnostics is an error.
    pub spec: Option<BuildSpec>,
    /// All that is to be said about it, by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    fn failed(diagnostic: Diagnostic) -> Self {
        Self {
            spec: None,
            diagnostics: vec![diagnostic],
        }
    }
}

/// Reads a buildspec. Any text is answered; see [`text_of`](crate::text_of) for bytes.
pub fn parse(text: &str) -> Parsed {
    if let Err(error) = input::text_of(text.as_bytes()) {
        return Parsed::failed(error.diagnostic());
    }
    let text = text.trim_start_matches('\u{feff}');
    let document = match yaml::read(text) {
        Ok(document) => document,
        Err(ReadError::Limit(diagnostic)) => return Parsed::failed(diagnostic),
        Err(ReadError::Syntax(error)) => return Parsed::failed(syntax::diagnose(text, &error)),
    };
    let mut reader = Reader::new(text);
    for remark in document.remarks {
        reader.say(remark);
    }
    let spec = read_spec(&mut reader, &document.root);
    let diagnostics = reader.finish();
    let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    Parsed {
        spec: spec.filter(|_| !diagnostics.iter().any(is_error)),
        diagnostics,
    }
}

/// Reads the whole file; `None` only after an error.
fn read_spec<'a>(reader: &mut Reader<'a>, root: &'a Node) -> Option<BuildSpec> {
    if !matches!(root.content, Content::Map(_)) {
        let message = if root.is_null() {
            "buildspec has nothing but comments".to_owned()
        } else {
            format!("buildspec has to be a mapping, not {}", root.kind())
        };
        let hint = "start with `version: 0.2` and `phases:`";
        reader.say(Diagnostic::error(root.place, message).with_hint(hint));
        return None;
    }
    let version = read_version(reader, root);
    let level = match version {
        Some(Version::V0_1) => &TOP_0_1,
        _ => &TOP,
    };
    let fields = reader.fields(root, "buildspec", level);
    let env = env::env(reader, &fields);
    let run_as = reader.some_text(fields.get("run-as"), "`run-as`");
    let proxy = env::proxy(reader, fields.get("proxy"));
    let phases = phases::phases(reader, fields.get("phases"));
    let reports = reports::reports(reader, fields.get("reports"));
    let artifacts = fields
        .get("artifacts")
        .and_then(|node| artifacts::artifacts(reader, node));
    let cache = fields
        .get("cache")
        .and_then(|node| artifacts::cache(reader, node));
    let batch = fields
        .get("batch")
        .and_then(|node| batch::batch(reader, node));
    check_runs_something(reader, &fields);
    Some(BuildSpec {
        version: version?,
        run_as,
        shell: env.shell,
        windows_shell: env.windows_shell,
        variables: env.variables,
        secrets: env.secrets,
        exported_variables: env.exported,
        git_credential_helper: env.git_credential_helper,
        proxy,
        phases,
        reports,
        artifacts,
        cache,
        batch,
    })
}

fn read_version(reader: &mut Reader<'_>, root: &Node) -> Option<Version> {
    let Content::Map(entries) = &root.content else {
        return None;
    };
    let Some(entry) = entries.iter().find(|entry| entry.key == "version") else {
        let message = "buildspec has no `version`";
        reader.say(
            Diagnostic::error(Place::START, message)
                .with_hint("add `version: 0.2` at the top")
                .with_codebuild("YAML_FILE_ERROR: wrong number of container tags, expected 1"),
        );
        return None;
    };
    let text = reader.text(&entry.value, "`version`")?;
    match text.trim() {
        "0.2" => Some(Version::V0_2),
        "0.1" => Some(Version::V0_1),
        _ => {
            let message = format!("`version` has to be 0.1 or 0.2, not {}", quoted(&text));
            let hint =
                "it is the version of the buildspec language; `version: 0.2` is the current one";
            reader.say(Diagnostic::error(entry.value.place, message).with_hint(hint));
            None
        }
    }
}

/// A file has to have phases, or a batch whose tasks may bring theirs.
fn check_runs_something(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    if fields.get("phases").is_none() && fields.get("batch").is_none() {
        let message = "buildspec has no `phases`, so there is nothing to run";
        let hint = "add `phases:`, and under it `build:` with its `commands:`";
        reader.say(Diagnostic::error(Place::START, message).with_hint(hint));
    }
}

#[cfg(test)]
mod tests;
