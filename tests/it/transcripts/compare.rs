//! Whether a build did what its transcript says.

use super::{
    expected::{Call, PhaseEnd, Transcript},
    found::{Found, FoundCall},
};

/// What texts of a transcript may stand for.
pub(super) struct Places {
    /// The commit of the source; empty if it has none.
    pub(super) commit: String,
}

impl Places {
    /// Whether `text` is what `pattern` says.
    fn matches(&self, pattern: &str, source: &str, text: &str) -> bool {
        let mut pattern = pattern.replace("{SRC}", source);
        for length in [7, 8] {
            let short = self.commit.get(..length).unwrap_or_default();
            pattern = pattern.replace(&format!("{{COMMIT:{length}}}"), short);
        }
        let pattern = pattern.replace("{COMMIT}", &self.commit);
        let mut pieces = pattern.split("{*}");
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut pieces: Vec<_> = pieces.collect();
        let Some(last) = pieces.pop() else {
            return rest.is_empty();
        };
        for piece in pieces {
            let Some(at) = rest.find(piece) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }

    /// In what a call is not the one that was expected; `None` if it is.
    fn difference(&self, expected: &Call, found: &FoundCall) -> Option<String> {
        let is = |pattern: &str, text: &str| self.matches(pattern, &found.source, text);
        let mut argv = expected.argv.iter().zip(&found.argv);
        if expected.argv.len() != found.argv.len() || !argv.all(|(a, b)| is(a, b)) {
            return Some(format!("{:?}, found {:?}", expected.argv, found.argv));
        }
        let of = format!("{:?}", expected.argv);
        if expected.phase != found.phase {
            let (expected, found) = (&expected.phase, &found.phase);
            return Some(format!("{of} in {expected}, found in {found}"));
        }
        let cwd = match expected.cwd.as_str() {
            "." => "{SRC}".to_owned(),
            below => format!("{{SRC}}/{below}"),
        };
        if !is(&cwd, &found.cwd) {
            return Some(format!("{of} in {cwd}, found in {}", found.cwd));
        }
        if let Some(stdin) = &expected.stdin
            && !is(stdin, &found.stdin)
        {
            return Some(format!("{of} reads {stdin:?}, found {:?}", found.stdin));
        }
        for (name, value) in &expected.env {
            let seen = found.env.get(name);
            let same = match (value.as_str(), seen) {
                ("{UNSET}", seen) => seen.is_none(),
                (value, Some(seen)) => is(value, seen),
                (_, None) => false,
            };
            if !same {
                return Some(format!("{of} sees {name}={value:?}, found {seen:?}"));
            }
        }
        None
    }
}

/// What a build did otherwise than its transcript says.
pub(super) fn differences(transcript: &Transcript, places: &Places, found: &Found) -> Vec<String> {
    let mut differences = Vec::new();
    let in_log = |phases: &[PhaseEnd]| -> Vec<_> {
        let phases = phases.iter().filter(|end| end.phase != "FINALIZING");
        phases.cloned().collect()
    };
    // A log may end before the build does.
    let (expected, ended) = (in_log(&transcript.phases), in_log(&found.phases));
    if expected != ended {
        let text = |phases: &[PhaseEnd]| {
            let line = |end: &PhaseEnd| {
                let context = format!("{} {}", end.code, end.message);
                format!("{} {} {}", end.phase, end.status, context.trim())
            };
            phases.iter().map(line).collect::<Vec<_>>().join("\n    ")
        };
        differences.push(format!(
            "phases\n    {}\n  found\n    {}",
            text(&expected),
            text(&ended)
        ));
    }
    let mut calls = found.calls.clone();
    let (background, in_order): (Vec<_>, Vec<_>) =
        transcript.call.iter().partition(|call| call.background);
    for expected in background {
        let same = |found: &FoundCall| places.difference(expected, found).is_none();
        match calls.iter().position(same) {
            Some(at) => {
                calls.remove(at);
            }
            None => differences.push(format!("{:?} in the background", expected.argv)),
        }
    }
    let mut calls = calls.into_iter();
    let repeated = in_order
        .into_iter()
        .flat_map(|call| std::iter::repeat_n(call, call.repeat));
    let repeated: Vec<_> = repeated.collect();
    let together = |a: &&Call, b: &&Call| a.pipe.is_some() && a.pipe == b.pipe;
    for group in repeated.chunk_by(together) {
        let mut left: Vec<_> = calls.by_ref().take(group.len()).collect();
        for expected in group {
            let same = |found: &FoundCall| places.difference(expected, found).is_none();
            if let Some(at) = left.iter().position(same) {
                left.remove(at);
                continue;
            }
            let alike = |found: &FoundCall| found.argv.first() == expected.argv.first();
            let Some(at) = left.iter().position(alike) else {
                differences.push(format!("{:?}, found {left:?}", expected.argv));
                continue;
            };
            differences.extend(places.difference(expected, &left.remove(at)));
        }
    }
    differences.extend(calls.map(|call| format!("unexpected: {:?} in {}", call.argv, call.phase)));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a build whose stand-ins told `calls`, by a transcript with `expected` ones.
    fn differences_of(expected: &str, calls: &[(&str, &str)]) -> Vec<String> {
        let text = format!(
            "file = 'f'\nsha256 = ''\nstand_ins = []\nphases = [{{ phase = 'BUILD', status = 'SUCCEEDED' }}]\n{expected}"
        );
        let call = |&(argv, cwd): &(&str, &str)| FoundCall {
            phase: "BUILD".to_owned(),
            argv: argv.split(' ').map(str::to_owned).collect(),
            cwd: cwd.to_owned(),
            source: "/src".to_owned(),
            env: [("A".to_owned(), "1".to_owned())].into(),
            ..FoundCall::default()
        };
        let log = "[Container] d t Phase complete: BUILD State: SUCCEEDED\n";
        let found = Found {
            calls: calls.iter().map(call).collect(),
            ..Found::in_log(log)
        };
        let places = Places {
            commit: "0123456789".to_owned(),
        };
        differences(&toml::from_str(&text).unwrap(), &places, &found)
    }

    const PIPED: &str = "
[[call]]
phase = 'BUILD'
argv = ['a', '{*}-{COMMIT:7}']
pipe = 1
[[call]]
phase = 'BUILD'
argv = ['b']
pipe = 1
cwd = 'below'
env = { A = '1', B = '{UNSET}' }
";

    #[test]
    fn calls_of_a_pipe_come_in_any_order_and_others_do_not() {
        let (a, b) = (("a x-0123456", "/src"), ("b", "/src/below"));
        assert!(differences_of(PIPED, &[a, b]).is_empty());
        assert!(differences_of(PIPED, &[b, a]).is_empty());
        let in_order = PIPED.replace("pipe = 1\n", "");
        assert!(differences_of(&in_order, &[a, b]).is_empty());
        assert_eq!(differences_of(&in_order, &[b, a]).len(), 2);
    }

    #[test]
    fn each_way_of_being_otherwise_is_a_difference() {
        let (a, b) = (("a x-0123456", "/src"), ("b", "/src/below"));
        for (text, calls) in [
            (PIPED.to_owned(), &[a][..]),
            (PIPED.to_owned(), &[a, b, b]),
            (PIPED.to_owned(), &[a, ("b", "/src")]),
            (PIPED.to_owned(), &[a, ("b c", "/src/below")]),
            (PIPED.to_owned(), &[("a x-012345", "/src"), b]),
            (PIPED.replace("A = '1'", "A = '2'"), &[a, b]),
            (PIPED.replace("A = '1'", "A = '{UNSET}'"), &[a, b]),
            (PIPED.replace("B = '{UNSET}'", "B = ''"), &[a, b]),
            (PIPED.replace("'BUILD'", "'INSTALL'"), &[a, b]),
            (PIPED.replace("pipe = 1\ncwd", "stdin = 's'\ncwd"), &[a, b]),
        ] {
            assert!(!differences_of(&text, calls).is_empty(), "{text}");
        }
    }
}
