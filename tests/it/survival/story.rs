//! A build whose phases leave traces for each other, and what must be true of its log however often
//! somebody died.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

/// The phases, as a buildspec names them.
pub(crate) const PHASES: [&str; 4] = ["install", "pre_build", "build", "post_build"];

/// How many numbered lines each phase prints.
pub(crate) const LINES: u32 = 8;

/// An argument of `sleep` by which the processes of one build are found.
pub(crate) fn unique_mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{count:03}", 400_000 + std::process::id())
}

/// A buildspec whose phases set a variable, change the directory, write in HOME, start a process in the
/// background and print numbered lines; each first checks what those before it left.
pub(crate) fn buildspec(mark: &str) -> String {
    let mut text = "version: 0.2\nphases:\n".to_owned();
    let (mut trail, mut directory) = (String::new(), String::new());
    for phase in PHASES {
        let checks = format!(
            "test \"$TRAIL\" = \"{trail}\" && test \"$(cat ~/trail)\" = \"{trail}\" && \
             test \"${{PWD#$CODEBUILD_SRC_DIR}}\" = \"{directory}\""
        );
        let _infallible = write!(text, "  {phase}:\n    commands:\n");
        let mut commands = Vec::new();
        if !trail.is_empty() {
            commands.push(checks);
        }
        commands.extend([
            format!("TRAIL=\"${{TRAIL}}-{phase}\""),
            format!("mkdir {phase} && cd {phase}"),
            "echo \"$TRAIL\" > ~/trail".to_owned(),
            format!("nohup sleep {mark} > /dev/null 2>&1 &"),
            format!("for line in $(seq {LINES}); do echo \"{phase} line $line\"; sleep 0.15; done"),
        ]);
        for command in commands {
            let _infallible = writeln!(text, "      - {}", Value::String(command));
        }
        let _infallible = write!(trail, "-{phase}");
        let _infallible = write!(directory, "/{phase}");
    }
    text
}

/// How often each job of the build was tried.
pub(crate) fn tries(status: &Value) -> Vec<u64> {
    let phases = status["units"][0]["phases"].as_array().unwrap();
    let tries = phases.iter().map(|phase| phase["attempts"].as_u64());
    tries.map(|tries| tries.unwrap_or(0)).collect()
}

/// What each attempt printed: by job and attempt.
#[derive(Debug, Default)]
pub(crate) struct Story {
    printed: BTreeMap<(u64, u64), String>,
}

impl Story {
    /// Reads what `--json` printed of a log. Each byte has its place in its attempt's log.
    pub(crate) fn read(text: &str) -> Self {
        let mut story = Self::default();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["event"] != "log" {
                continue;
            }
            let number = |name: &str| event[name].as_u64().unwrap();
            let attempt = (number("job"), number("attempt"));
            let printed = story.printed.entry(attempt).or_default();
            assert_eq!(
                usize::try_from(number("offset")).unwrap(),
                printed.len(),
                "a piece of {attempt:?} is there twice, or one is missing"
            );
            printed.push_str(event["text"].as_str().unwrap());
        }
        story
    }

    /// What each attempt printed: by job and attempt.
    pub(crate) fn into_printed(self) -> BTreeMap<(u64, u64), String> {
        self.printed
    }

    /// Checks that each numbered line of a stored phase was printed once by the attempt that counts.
    pub(crate) fn check(&self, status: &Value, what: &str) {
        let tries = tries(status);
        for (job, phase) in (1..).zip(PHASES) {
            let attempt = tries[usize::try_from(job).unwrap()];
            let printed = self.printed.get(&(job, attempt));
            let printed = printed.unwrap_or_else(|| panic!("{phase} printed nothing: {what}"));
            let start = format!("{phase} line ");
            let lines = printed.lines().filter_map(|line| line.strip_prefix(&start));
            let numbers: Vec<u32> = lines.map(|number| number.parse().unwrap()).collect();
            let expected: Vec<u32> = (1..=LINES).collect();
            assert_eq!(numbers, expected, "{phase}: {what}");
        }
    }
}
