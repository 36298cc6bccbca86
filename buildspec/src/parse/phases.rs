//! The section `phases`.

use std::collections::BTreeMap;

use protocol::{
    job::{RETRIES_MAX, Retry},
    retry::RetryRule,
};

use crate::{
    diagnostic::{Diagnostic, quoted},
    keys::{PHASE, PHASES},
    reader::Reader,
    spec::{OnFailure, PhaseSpec, Phases},
    yaml::{Content, Entry, Node},
};

/// The runtimes whose versions can be chosen, those of old images too.
const RUNTIMES: &[&str] = &[
    "android", "docker", "dotnet", "golang", "java", "nodejs", "php", "python", "ruby",
];

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
    if matches!(entry.value.content, Content::List(_)) {
        let message = format!("phase `{name}` has to be a mapping, not a list");
        let hint = "write `commands:` above the list, and indent the list";
        reader.say(Diagnostic::error(entry.value.place, message).with_hint(hint));
        return PhaseSpec::default();
    }
    let fields = reader.fields(&entry.value, &format!("phase `{name}`"), &PHASE);
    let in_phase = |key: &str| format!("`phases.{name}.{key}`");
    let has_commands = fields.get("commands").is_some();
    let is_mapping = matches!(entry.value.content, Content::Map(_));
    if !has_commands && is_mapping && name != "install" {
        let message = format!("phase `{name}` has no `commands`");
        let hint = "add `commands:` with a list, or take the phase out";
        reader.say(Diagnostic::error(entry.place, message).with_hint(hint));
    }
    let runtime_versions = fields.entry("runtime-versions").map(|runtimes| {
        if name != "install" {
            let message = "`runtime-versions` counts only in phase `install`";
            let hint = "put it under `phases.install`";
            reader.say(Diagnostic::warning(runtimes.place, message).with_hint(hint));
        }
        runtimes_of(reader, runtimes, &in_phase("runtime-versions"))
    });
    PhaseSpec {
        is_named: true,
        commands: reader.commands(fields.entry("commands"), &in_phase("commands")),
        finally: reader.commands(fields.entry("finally"), &in_phase("finally")),
        on_failure: on_failure(reader, fields.get("on-failure"), &in_phase("on-failure")),
        run_as: reader.some_text(fields.get("run-as"), &in_phase("run-as")),
        runtime_versions: runtime_versions.unwrap_or_default(),
    }
}

/// The versions by runtime, as written: `3.10` stays `3.10`.
fn runtimes_of<'a>(
    reader: &mut Reader<'a>,
    entry: &'a Entry,
    what: &str,
) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let entries = reader.entries(&entry.value, what);
    let is_mapping = matches!(entry.value.content, Content::Map(_));
    if entries.is_empty() && (is_mapping || entry.value.is_null()) {
        let message = format!("{what} names no runtime, and has to name one at least");
        let hint = "add one, like `python: 3.12`, or take it out";
        reader.say(Diagnostic::warning(entry.place, message).with_hint(hint));
    }
    for entry in entries {
        reader.expect_word((&entry.key, entry.place), "runtime", RUNTIMES);
        let what = format!("the version of {}", quoted(&entry.key));
        match reader.some_text(Some(&entry.value), &what) {
            Some(version) => drop(versions.insert(entry.key.clone(), version)),
            None if entry.value.is_null() => {
                let message = format!("{what} is not given");
                let hint = format!("write `{}: latest`, or a version", entry.key);
                reader.say(Diagnostic::warning(entry.place, message).with_hint(hint));
            }
            None => {}
        }
    }
    versions
}

fn on_failure(reader: &mut Reader<'_>, node: Option<&Node>, what: &str) -> OnFailure {
    let Some(node) = node else {
        return OnFailure::default();
    };
    let Some(text) = reader.some_text(Some(node), what) else {
        return OnFailure::default();
    };
    let word = text.trim();
    match word {
        "ABORT" => return OnFailure::Abort,
        "CONTINUE" => return OnFailure::Continue,
        _ => {}
    }
    let (message, hint) = match retry(word) {
        Some(Ok(retry)) => match RetryRule::new(&retry) {
            Ok(_) => return OnFailure::Retry(retry),
            Err(mistake) => (
                format!("{what}: {mistake}"),
                "what follows `RETRY-` is looked for in the message of the failure, like \
                 `RETRY-2-exit status (5|6)`"
                    .to_owned(),
            ),
        },
        Some(Err(mistake)) => (
            format!("{what}: {mistake}, not {}", quoted(word)),
            "write `RETRY`, `RETRY-2`, `RETRY-PATTERN` or `RETRY-2-PATTERN`".to_owned(),
        ),
        None => (
            format!(
                "{what} has to be `ABORT`, `CONTINUE` or `RETRY`, not {}",
                quoted(&text)
            ),
            on_failure_hint(word),
        ),
    };
    reader.say(Diagnostic::error(node.place, message).with_hint(hint));
    OnFailure::default()
}

/// What is probably meant by a word that `on-failure` does not have.
fn on_failure_hint(word: &str) -> String {
    if word.contains('|') {
        return "the `|` is from the reference, and means \"or\": choose one of them".to_owned();
    }
    let upper = word.to_ascii_uppercase();
    if matches!(upper.as_str(), "ABORT" | "CONTINUE") || upper.starts_with("RETRY") {
        return format!("write it in capitals: `{upper}`");
    }
    "leave it out for the usual: only `build` is followed by the next phase when it fails"
        .to_owned()
}

/// Reads `RETRY`, `RETRY-<count>`, `RETRY-<pattern>` or `RETRY-<count>-<pattern>`; `None` if it is none
/// of these.
fn retry(word: &str) -> Option<Result<Retry, String>> {
    let rest = word.strip_prefix("RETRY")?;
    if rest.is_empty() {
        return Some(Ok(Retry::default()));
    }
    let rest = rest.strip_prefix('-')?;
    if rest.is_empty() {
        return Some(Err("a count or a pattern has to follow `RETRY-`".to_owned()));
    }
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, after) = rest.split_at(digits);
    let pattern = match after.strip_prefix('-') {
        _ if count.is_empty() => rest,
        _ if after.is_empty() => "",
        Some(pattern) if !pattern.is_empty() => pattern,
        _ => return Some(Ok(with_pattern(rest))),
    };
    if count.is_empty() {
        return Some(Ok(with_pattern(pattern)));
    }
    let usual = Retry::default();
    let Some(count) = count.parse().ok().filter(|&count| count <= RETRIES_MAX) else {
        return Some(Err(format!(
            "a phase can be run again at most {RETRIES_MAX} times"
        )));
    };
    Some(Ok(Retry {
        count,
        pattern: match pattern {
            "" => usual.pattern,
            pattern => pattern.to_owned(),
        },
    }))
}

/// As often as usual, where the message matches.
fn with_pattern(pattern: &str) -> Retry {
    Retry {
        pattern: pattern.to_owned(),
        ..Retry::default()
    }
}
