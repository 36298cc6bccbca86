//! The section `phases`.

use crate::{
    advice::missing_space,
    diagnostic::{Diagnostic, quoted},
    keys::{PHASE, PHASES},
    reader::Reader,
    spec::{OnFailure, PhaseSpec, Phases},
    yaml::{Content, Entry, Node},
};

/// Reads `phases`; `None` if the file has none.
pub(super) fn phases<'a>(reader: &mut Reader<'a>, node: Option<&'a Node>) -> Option<Phases> {
    let node = node?;
    let fields = reader.fields(node, "`phases`", &PHASES);
    let there = PHASES
        .names()
        .filter(|name| fields.get(name).is_some())
        .count();
    if there == 0 && (node.is_null() || matches!(node.content, Content::Map(_))) {
        let message = "`phases` has no phase, so there is nothing to run";
        let hint = "the phases are `install`, `pre_build`, `build` and `post_build`";
        reader.say(Diagnostic::error(node.place, message).with_hint(hint));
    }
    let mut phase = |name: &str| {
        let entry = fields.entry(name);
        entry
            .map(|entry| phase_spec(reader, entry))
            .unwrap_or_default()
    };
    Some(Phases {
        install: phase("install"),
        pre_build: phase("pre_build"),
        build: phase("build"),
        post_build: phase("post_build"),
    })
}

fn phase_spec<'a>(reader: &mut Reader<'a>, entry: &'a Entry) -> PhaseSpec {
    let name = &entry.key;
    let fields = reader.fields(&entry.value, &format!("phase `{name}`"), &PHASE);
    let in_phase = |key: &str| format!("`phases.{name}.{key}`");
    if let Some(runtimes) = fields.get("runtime-versions") {
        check_runtimes(reader, runtimes, &in_phase("runtime-versions"));
    }
    let has_commands = fields.get("commands").is_some();
    let is_mapping = matches!(entry.value.content, Content::Map(_));
    if !has_commands && is_mapping && name != "install" {
        let message = format!("phase `{name}` has no `commands`");
        let hint = "add `commands:` with a list, or take the phase out";
        reader.say(Diagnostic::error(entry.place, message).with_hint(hint));
    }
    PhaseSpec {
        commands: reader.commands(fields.get("commands"), &in_phase("commands")),
        finally: reader.commands(fields.get("finally"), &in_phase("finally")),
        on_failure: on_failure(reader, fields.get("on-failure"), &in_phase("on-failure")),
    }
}

/// What `runtime-versions` says is not acted on, so that it makes no sense is not an error.
fn check_runtimes(reader: &mut Reader<'_>, node: &Node, what: &str) {
    let Content::Scalar { text, .. } = &node.content else {
        return;
    };
    let message = format!("{what} has to be a mapping, not {}", node.kind());
    reader.say(Diagnostic {
        hint: missing_space(text),
        ..Diagnostic::warning(node.place, message)
    });
}

fn on_failure(reader: &mut Reader<'_>, node: Option<&Node>, what: &str) -> OnFailure {
    let Some(node) = node else {
        return OnFailure::default();
    };
    let Some(text) = reader.some_text(Some(node), what) else {
        return OnFailure::default();
    };
    match text.trim() {
        "ABORT" => OnFailure::Abort,
        "CONTINUE" => OnFailure::Continue,
        retry if retry == "RETRY" || retry.starts_with("RETRY-") => {
            let message = format!(
                "{what}: {} is not acted on: the phase runs once",
                quoted(retry)
            );
            reader.say(Diagnostic::warning(node.place, message));
            OnFailure::default()
        }
        _ => {
            let message = format!(
                "{what} has to be `ABORT` or `CONTINUE`, not {}",
                quoted(&text)
            );
            let hint = "leave it out for the usual: only `build` is followed by the next phase when it fails";
            reader.say(Diagnostic::error(node.place, message).with_hint(hint));
            OnFailure::default()
        }
    }
}
