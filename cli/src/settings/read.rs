//! Reading settings: what is wrong with them is said in the words of whoever wrote them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::archive::PROTOCOLS;

use super::File;

/// The longest time that can be set, in days: ten years, on which no sum of times overflows.
const DAYS_MAX: u64 = 3_650;
const MINUTES_MAX: u64 = DAYS_MAX * 24 * 60;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file that was named cannot be read.
    #[error("failed to read settings from `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that makes no sense.
    #[error("settings in `{}` are wrong: {message}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What, where, and what was probably meant.
        message: String,
    },
}

impl File {
    /// Reads the file that was named, or the first of `candidates` that exists, or takes the defaults.
    ///
    /// # Errors
    ///
    /// If a file that was named is not there, or any cannot be read or is wrong.
    pub(crate) fn load(
        named: Option<&Path>,
        candidates: &[PathBuf],
    ) -> Result<(Self, Option<PathBuf>), SettingsError> {
        let found = candidates.iter().find(|path| path.exists());
        let Some(path) = named.or_else(|| found.map(PathBuf::as_path)) else {
            return Ok((Self::default(), None));
        };
        let text = fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = Self::parse(&text).map_err(|message| SettingsError::Wrong {
            path: path.to_owned(),
            message,
        })?;
        Ok((file, Some(path.to_owned())))
    }

    /// Reads settings; the error names the key, where it stands, and the nearest known one.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start)];
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", in_words(error.message(), text, line))
        })?;
        file.check()?;
        Ok(file)
    }

    /// Checks what types do not.
    fn check(&self) -> Result<(), String> {
        let mut protocols = self.worker.archive_protocols.iter();
        if let Some(other) = protocols.find(|named| !PROTOCOLS.contains(&named.as_str())) {
            return Err(format!(
                "`archive_protocols` has `{other}`; there are {}",
                PROTOCOLS.join(", ")
            ));
        }
        let coordinator = &self.coordinator;
        let times = [
            (
                "build_minutes_max",
                coordinator.build_minutes_max,
                MINUTES_MAX,
            ),
            (
                "batch_minutes_max",
                coordinator.batch_minutes_max,
                MINUTES_MAX,
            ),
            (
                "queue_minutes_max",
                coordinator.queue_minutes_max,
                MINUTES_MAX,
            ),
            ("retention_days", coordinator.retention_days, DAYS_MAX),
            ("cold_keep_days", self.cache.cold_keep_days, DAYS_MAX),
            ("hold_minutes", self.cache.hold_minutes, MINUTES_MAX),
        ];
        for (key, value, most) in times {
            if most < value.get() {
                return Err(format!("`{key}` is {value}; at most {most} is possible"));
            }
        }
        let addresses = [
            ("coordinator", coordinator.advertise),
            ("cache", self.cache.advertise),
        ];
        for (section, advertise) in addresses {
            let useless = advertise.filter(|to| to.ip().is_unspecified() || to.port() == 0);
            if let Some(useless) = useless {
                let message = format!(
                    "`advertise` of `[{section}]` is {useless}, which names no machine and port"
                );
                return Err(message);
            }
        }
        Ok(())
    }
}

/// The library's message in words of this program: keys instead of types.
fn in_words(message: &str, text: &str, line: usize) -> String {
    if let Some(known) = nearest(message) {
        return format!("{message}; did you mean `{known}`?");
    }
    let mut message = message.to_owned();
    for (of_types, words) in TYPES {
        message = message.replace(of_types, words);
    }
    let written = text.lines().nth(line - 1).unwrap_or_default();
    match written.split_once('=') {
        Some((key, _)) => format!("`{}`: {message}", key.trim()),
        None => message,
    }
}

/// What the library says of types, and what people call that.
const TYPES: [(&str, &str); 6] = [
    ("a nonzero u32", "a whole number, at least 1"),
    ("a nonzero u64", "a whole number, at least 1"),
    ("u32", "a whole number, not negative"),
    ("u64", "a whole number, not negative"),
    (
        "invalid socket address syntax",
        "this is no address like `127.0.0.1:7420`",
    ),
    ("socket address", "an address like `127.0.0.1:7420`"),
];

/// Of the keys that a message about an unknown one lists, the one that was probably meant.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ").then(|| quoted.next())??;
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = File::parse(text).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn mistakes_are_named() {
        check_refused("[worker]\nslot = 2", "line 2: unknown field `slot`");
        check_refused("[worker]\nslot = 2", "did you mean `slots`?");
        check_refused("[cash]\n", "did you mean `cache`?");
        check_refused("[worker]\nparallelism = 2", "did you mean `");
        check_refused("[worker]\nslots = -1", "line 2: `slots`: ");
        check_refused("[worker]\nslots = 0", "at least 1");
        check_refused("[worker]\nisolation = \"vm\"", "did you mean `");
        check_refused("[coordinator]\nretention_days = 0", "at least 1");
        check_refused("[coordinator]\nretention_days = 4000", "at most 3650");
        check_refused(
            "[cache]\nadvertise = '0.0.0.0:1'",
            "`advertise` of `[cache]`",
        );
        check_refused("[cache]\nlisten = 'here'", "`listen`: this is no address");
    }

    #[test]
    fn messages_speak_of_keys_and_not_of_types() {
        for wrong in [
            "worker = 3",
            "[worker]\nslots = 'two'",
            "[worker]\nslots = 0",
            "[worker]\nlabels = 3",
            "[worker]\nlabels = { a = 1 }",
            "[worker]\nname = 3",
            "[worker]\nname = '/'",
            "[worker]\nisolation = 3",
            "[worker]\ndirectory = 3",
            "[worker]\npass_environment = 'HOME'",
            "[cache]\nlisten = 3",
            "[cache]\nbytes_max = -1",
            "[coordinator]\nretention_days = 1.5",
        ] {
            let message = File::parse(wrong).unwrap_err();
            for word in [
                "struct",
                "u32",
                "u64",
                "enum",
                "File",
                "Isolation",
                "socket",
                "nonzero",
            ] {
                assert!(!message.contains(word), "{wrong:?}: {message}");
            }
            let key = wrong
                .rsplit('\n')
                .next()
                .and_then(|line| line.split(' ').next());
            assert!(
                message.contains(&format!("`{}`", key.unwrap())),
                "{message}"
            );
        }
    }
}
