//! What a build's log tells: the calls of stand-ins, phase by phase, and how phases ended.

use std::collections::BTreeMap;

use super::{expected::PhaseEnd, stand_in::SIGN};

/// A call that happened.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundCall {
    pub(super) phase: String,
    pub(super) argv: Vec<String>,
    pub(super) cwd: String,
    /// The source directory, as the program saw it.
    pub(super) source: String,
    pub(super) stdin: String,
    pub(super) env: BTreeMap<String, String>,
}

/// What a log tells.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) calls: Vec<FoundCall>,
    pub(super) phases: Vec<PhaseEnd>,
}

impl Found {
    /// Reads a log.
    pub(super) fn in_log(log: &str) -> Self {
        let mut found = Self::default();
        let mut phase = String::new();
        for line in log.lines() {
            if let Some(hex) = line.strip_prefix(SIGN) {
                found.calls.push(call(&phase, hex));
                continue;
            }
            // `[Container] DATE TIME TEXT`
            let Some(line) = line.strip_prefix("[Container] ") else {
                continue;
            };
            let text = line.splitn(3, ' ').nth(2).unwrap_or_default();
            if let Some(name) = text.strip_prefix("Entering phase ") {
                name.clone_into(&mut phase);
            } else if let Some(end) = text.strip_prefix("Phase complete: ") {
                let (name, status) = end.split_once(" State: ").unwrap();
                found.phases.push(PhaseEnd {
                    phase: name.to_owned(),
                    status: status.to_owned(),
                    code: String::new(),
                    message: String::new(),
                });
            } else if let Some(context) = text.strip_prefix("Phase context status code: ") {
                let (code, message) = context.split_once(" Message: ").unwrap();
                let last = found.phases.last_mut().unwrap();
                code.clone_into(&mut last.code);
                message.clone_into(&mut last.message);
            }
        }
        found
    }
}

/// Reads what a stand-in told.
fn call(phase: &str, hex: &str) -> FoundCall {
    let digits = hex.as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let mut call = FoundCall {
        phase: phase.to_owned(),
        ..FoundCall::default()
    };
    for field in bytes.split(|&byte| byte == 0) {
        let text = String::from_utf8_lossy(field);
        let Some((kind, text)) = text.split_at_checked(1) else {
            continue;
        };
        let owned = text.to_owned();
        match kind {
            "a" => call.argv.push(owned),
            "d" => call.cwd = owned,
            "i" => call.stdin = owned,
            "s" => call.source = owned,
            "v" => {
                let (name, value) = text.split_once('=').unwrap();
                call.env.insert(name.to_owned(), value.to_owned());
            }
            other => panic!("a stand-in told `{other}`"),
        }
    }
    call
}
