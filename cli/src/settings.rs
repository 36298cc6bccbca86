//! Settings: one `grange.toml`, what it may say, and what holds when it says nothing.
//!
//! What is written ([`File`]) and what is meant are two things: flags go over the file, the file over the
//! defaults. Every key and its default is in `docs/operating.md`, which a test compares.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use protocol::{name::WorkerName, worker::Isolation};
use serde::{Deserialize, Serialize};

/// Where the coordinator listens unless told otherwise: on all interfaces would open a farm to the
/// network that was meant for one machine.
const LISTEN_DEFAULT: &str = "127.0.0.1:7420";
/// Where the cache listens unless told otherwise.
const CACHE_LISTEN_DEFAULT: &str = "127.0.0.1:7421";
/// What a build needs to know of its machine to reach the network at all: proxies and certificates, by
/// the names that curl, git, pip, npm, cargo and the aws CLI read; and where rustup keeps toolchains.
const PASSED_ON: [&str; 20] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "RUSTUP_HOME",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// How long a name may be mistyped and still be recognised, in edits.
const TYPO_EDITS_MAX: usize = 3;

/// `grange.toml`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// Of the service that schedules.
    pub(crate) coordinator: CoordinatorFile,
    /// Of the service that stores.
    pub(crate) cache: CacheFile,
    /// Of workers.
    pub(crate) worker: WorkerFile,
    /// Of the commands that people type.
    pub(crate) client: ClientFile,
}

/// `[coordinator]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CoordinatorFile {
    /// Where to listen, over QUIC.
    pub(crate) listen: SocketAddr,
    /// Where to keep builds, logs and the farm's authority.
    pub(crate) directory: Option<PathBuf>,
    /// Where to serve `/metrics` and `/healthz`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How long a build may run.
    pub(crate) build_minutes_max: u64,
    /// How long a build may wait for its first phase.
    pub(crate) queue_minutes_max: u64,
    /// How long builds, logs and artifacts are kept.
    pub(crate) retention_days: u64,
    /// How many bytes of logs are kept; the oldest builds go first.
    pub(crate) retention_bytes_max: u64,
}

impl Default for CoordinatorFile {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT.parse().expect("the default is an address"),
            directory: None,
            metrics_listen: None,
            build_minutes_max: 60,
            queue_minutes_max: 480,
            retention_days: 30,
            retention_bytes_max: 10 << 30,
        }
    }
}

/// `[cache]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CacheFile {
    /// Where to listen, over QUIC.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, if not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    /// Where to keep the store.
    pub(crate) directory: Option<PathBuf>,
    /// Where to serve `/metrics` and `/healthz`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How much the store may take on disk.
    pub(crate) bytes_max: u64,
    /// How much room it leaves on the disk: below, writes are refused.
    pub(crate) free_bytes_min: u64,
    /// How long a chunk stays after the cache said that it has it.
    pub(crate) hold_minutes: u64,
}

impl Default for CacheFile {
    fn default() -> Self {
        Self {
            listen: CACHE_LISTEN_DEFAULT
                .parse()
                .expect("the default is an address"),
            advertise: None,
            directory: None,
            metrics_listen: None,
            bytes_max: 50 << 30,
            free_bytes_min: 1 << 30,
            hold_minutes: 120,
        }
    }
}

/// `[worker]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorkerFile {
    /// The worker's name.
    pub(crate) name: Option<WorkerName>,
    /// How many phases it runs at once.
    pub(crate) slots: u32,
    /// What builds can ask for.
    pub(crate) labels: BTreeMap<String, String>,
    /// How it keeps builds apart.
    pub(crate) isolation: Option<Isolation>,
    /// Where it keeps layers and running attempts.
    pub(crate) directory: Option<PathBuf>,
    /// How much its unpacked layers may take on disk.
    pub(crate) bytes_max: u64,
    /// What sets this machine's root file system apart from others that look alike.
    pub(crate) base_salt: String,
    /// The `PATH` that builds start with; by default the worker's own.
    pub(crate) path: Option<String>,
    /// Which of the worker's own variables builds start with, where it has them.
    pub(crate) pass_environment: Vec<String>,
}

impl Default for WorkerFile {
    fn default() -> Self {
        Self {
            name: None,
            slots: 1,
            labels: BTreeMap::new(),
            isolation: None,
            directory: None,
            bytes_max: 20 << 30,
            base_salt: String::new(),
            path: None,
            pass_environment: PASSED_ON.map(str::to_owned).into(),
        }
    }
}

/// `[client]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientFile {
    /// The farm that commands go to; without it `grange build` runs an embedded one.
    pub(crate) farm: Option<String>,
}

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
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            let message = error.message();
            match nearest(message) {
                Some(known) => format!("line {line}: {message}; did you mean `{known}`?"),
                None => format!("line {line}: {message}"),
            }
        })
    }
}

/// Of the keys that a message about an unknown one lists, the one that was probably meant.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message
        .starts_with("unknown field")
        .then(|| quoted.next())??;
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(edits, _)| *edits <= TYPO_EDITS_MAX)
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
        check_refused("[worker]\nslots = -1", "line 2");
        check_refused("[worker]\nisolation = \"vm\"", "unknown variant `vm`");
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let file = File::parse("[worker]\nslots = 4").unwrap();
        assert_eq!(file.worker.slots, 4);
        assert_eq!(file.coordinator, CoordinatorFile::default());
    }

    #[test]
    fn every_key_is_documented() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
        let document = fs::read_to_string(document).unwrap();
        // Options that are not set are left out of TOML, so they are named here.
        let mut keys: Vec<String> = [
            "directory",
            "metrics_listen",
            "advertise",
            "name",
            "isolation",
            "path",
            "farm",
        ]
        .map(str::to_owned)
        .into();
        let table = toml::Table::try_from(File::default()).unwrap();
        for (_, section) in &table {
            keys.extend(section.as_table().unwrap().keys().cloned());
        }
        for key in keys {
            assert!(
                document.contains(&format!("`{key}`")),
                "`{key}` is not documented"
            );
        }
    }
}
