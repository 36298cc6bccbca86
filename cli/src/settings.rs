//! Settings: one `grange.toml`, what it may say, and what holds when it says nothing.
//!
//! What is written ([`File`]) and what is meant are two things: flags go over the file, the file over the
//! defaults. Every key and its default is in `docs/operating.md`, which a test compares.

mod read;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
};

use coordinator::{
    BATCH_TIME_LIMIT, BUILD_TIME_LIMIT, QUEUE_TIME_LIMIT, RETENTION, RETENTION_BYTES,
};
use protocol::{
    name::{Team, WorkerName},
    worker::Isolation,
};
use serde::{Deserialize, Serialize};
use transport::Congestion;

/// Where the coordinator listens unless told otherwise: on all interfaces would open a farm to the
/// network that was meant for one machine.
const LISTEN_DEFAULT: &str = "127.0.0.1:7420";
/// Where the cache listens unless told otherwise.
const CACHE_LISTEN_DEFAULT: &str = "127.0.0.1:7421";
/// What archives are fetched over unless the worker's owner says otherwise: nobody on the way can change them unseen.
const ARCHIVE_PROTOCOL: &str = "https";
/// What sources are fetched over with git unless the worker's owner says otherwise: not the machine's own files, and
/// nothing that anybody on the way could change unseen.
const GIT_PROTOCOLS: [&str; 2] = ["https", "ssh"];
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
/// `grange.toml`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
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
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct CoordinatorFile {
    /// Where to listen, over QUIC.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, if not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    /// Where to keep builds, logs and the farm's authority.
    pub(crate) directory: Option<PathBuf>,
    /// Where the key of the secrets is.
    pub(crate) secrets_key_file: Option<PathBuf>,
    /// Where to serve `/metrics` and `/healthz`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How long a build may run.
    pub(crate) build_minutes_max: NonZeroU64,
    /// How long a batch may take with all of its builds.
    pub(crate) batch_minutes_max: NonZeroU64,
    /// How long a build may wait for its first phase.
    pub(crate) queue_minutes_max: NonZeroU64,
    /// How long builds, logs and artifacts are kept.
    pub(crate) retention_days: NonZeroU64,
    /// How many bytes of logs and artifacts are kept; the oldest builds go first.
    pub(crate) retention_bytes_max: u64,
    /// How many times as large the share of a team is as that of a team that is not named.
    pub(crate) team_shares: BTreeMap<Team, NonZeroU32>,
    /// Where builds have pages.
    pub(crate) build_url: Option<String>,
}

impl Default for CoordinatorFile {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT.parse().expect("the default is an address"),
            advertise: None,
            directory: None,
            secrets_key_file: None,
            metrics_listen: None,
            build_minutes_max: not_zero(BUILD_TIME_LIMIT.as_secs() / 60),
            batch_minutes_max: not_zero(BATCH_TIME_LIMIT.as_secs() / 60),
            queue_minutes_max: not_zero(QUEUE_TIME_LIMIT.as_secs() / 60),
            retention_days: not_zero(RETENTION.as_secs() / (24 * 60 * 60)),
            retention_bytes_max: RETENTION_BYTES,
            team_shares: BTreeMap::new(),
            build_url: None,
        }
    }
}

/// `[cache]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct CacheFile {
    /// Where to listen, over QUIC.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, if not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    /// Where to keep the store.
    pub(crate) directory: Option<PathBuf>,
    /// Where to keep its log.
    pub(crate) log_directory: Option<PathBuf>,
    /// Where to serve `/metrics` and `/healthz`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How much the store may take on disk.
    pub(crate) bytes_max: u64,
    /// How much room it leaves on the disk: below, writes are refused.
    pub(crate) free_bytes_min: u64,
    /// How long a chunk stays after the cache said that it has it.
    pub(crate) hold_minutes: NonZeroU64,
    /// How many bytes one connection moves in a second.
    pub(crate) connection_bytes_per_second_max: Option<NonZeroU64>,
    /// How many bytes all connections of a team move in a second.
    pub(crate) team_bytes_per_second_max: Option<NonZeroU64>,
    /// How many bytes may be on their way to readers of one team.
    pub(crate) team_bytes_in_flight_max: NonZeroU64,
    /// How it finds out how much it may send.
    pub(crate) congestion: Congestion,
    /// The bucket behind the store.
    pub(crate) cold_bucket: Option<String>,
    /// The address of the server that has it.
    pub(crate) cold_endpoint: Option<String>,
    /// The region that it is in.
    pub(crate) cold_region: Option<String>,
    /// How the names of its objects start.
    pub(crate) cold_prefix: String,
    /// How long it keeps what no cache has or asks for any more.
    pub(crate) cold_keep_days: NonZeroU64,
}

impl Default for CacheFile {
    fn default() -> Self {
        Self {
            listen: CACHE_LISTEN_DEFAULT
                .parse()
                .expect("the default is an address"),
            advertise: None,
            directory: None,
            log_directory: None,
            metrics_listen: None,
            bytes_max: 50 << 30,
            free_bytes_min: 1 << 30,
            hold_minutes: not_zero(120),
            connection_bytes_per_second_max: None,
            team_bytes_per_second_max: None,
            team_bytes_in_flight_max: not_zero(256 << 20),
            congestion: Congestion::default(),
            cold_bucket: None,
            cold_endpoint: None,
            cold_region: None,
            cold_prefix: "grange".to_owned(),
            cold_keep_days: not_zero(30),
        }
    }
}

/// `[worker]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct WorkerFile {
    /// The worker's name.
    pub(crate) name: Option<WorkerName>,
    /// How many phases it runs at once.
    pub(crate) slots: NonZeroU32,
    /// What builds can ask for.
    pub(crate) labels: BTreeMap<String, String>,
    /// How it keeps builds apart.
    pub(crate) isolation: Option<Isolation>,
    /// Where it keeps layers and running attempts.
    pub(crate) directory: Option<PathBuf>,
    /// Where to serve `/metrics` and `/healthz`.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How much its unpacked layers may take on disk.
    pub(crate) bytes_max: u64,
    /// The runtimes that builds can select: the directory of the programs by runtime and version.
    pub(crate) runtimes: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// What sets this machine's root file system apart from others that look alike.
    pub(crate) base_salt: String,
    /// The `PATH` that builds start with; by default the worker's own.
    pub(crate) path: Option<String>,
    /// Which of the worker's own variables builds start with, where it has them.
    pub(crate) pass_environment: Vec<String>,
    /// The protocols over which it fetches sources.
    pub(crate) git_protocols: Vec<String>,
    /// Over what sources that are archives are fetched.
    pub(crate) archive_protocols: Vec<String>,
    /// The socket of its machine's docker.
    pub(crate) docker_socket: PathBuf,
    /// The projects whose builds may use it.
    pub(crate) docker_projects: Vec<String>,
}

impl Default for WorkerFile {
    fn default() -> Self {
        Self {
            name: None,
            slots: NonZeroU32::MIN,
            labels: BTreeMap::new(),
            isolation: None,
            directory: None,
            metrics_listen: None,
            bytes_max: 20 << 30,
            runtimes: BTreeMap::new(),
            base_salt: String::new(),
            path: None,
            pass_environment: PASSED_ON.map(str::to_owned).into(),
            git_protocols: GIT_PROTOCOLS.map(str::to_owned).into(),
            archive_protocols: vec![ARCHIVE_PROTOCOL.to_owned()],
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            docker_projects: Vec::new(),
        }
    }
}

/// `[client]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(crate) struct ClientFile {
    /// The farm that commands go to; without it `grange build` runs an embedded one.
    pub(crate) farm: Option<String>,
}

const fn not_zero(number: u64) -> NonZeroU64 {
    match NonZeroU64::new(number) {
        Some(number) => number,
        None => NonZeroU64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_not_written_has_its_default() {
        let file = File::parse("[worker]\nslots = 4").unwrap();
        assert_eq!(file.worker.slots.get(), 4);
        assert_eq!(file.coordinator, CoordinatorFile::default());
    }

    /// The rows of the tables of `docs/operating.md`: section, key, default.
    fn documented() -> Vec<[String; 3]> {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
        let document = fs::read_to_string(document).unwrap();
        let mut section = None;
        let mut rows = Vec::new();
        for line in document.lines() {
            if let Some(heading) = line.strip_prefix('#') {
                let name = heading.trim_start_matches('#').trim().trim_matches('`');
                let name = name
                    .strip_prefix('[')
                    .and_then(|name| name.strip_suffix(']'));
                section = name.map(str::to_owned);
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let (Some(section), [_, key, default, ..]) = (&section, &cells[..])
                && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
            {
                rows.push([
                    section.clone(),
                    key.to_owned(),
                    default.trim_matches('`').to_owned(),
                ]);
            }
        }
        rows
    }

    /// Every key with its default as TOML writes it; `None`: it has none.
    fn defaults() -> Vec<(String, String, Option<String>)> {
        // What is not set is left out of TOML, but not of JSON.
        let json = serde_json::to_value(File::default()).unwrap();
        let mut defaults = Vec::new();
        for (section, keys) in json.as_object().unwrap() {
            for (key, value) in keys.as_object().unwrap() {
                let text = match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                defaults.push((section.clone(), key.clone(), text));
            }
        }
        defaults
    }

    #[test]
    fn every_key_and_its_default_are_documented_and_nothing_else_is() {
        let documented = documented();
        let defaults = defaults();
        for (section, key, default) in &defaults {
            let row = documented
                .iter()
                .find(|[in_section, of_key, _]| in_section == section && of_key == key);
            let [_, _, said] = row.unwrap_or_else(|| panic!("[{section}] {key} is not documented"));
            // Lists and empty texts are in words; `pass_environment` has a test of its own.
            match default.as_deref() {
                Some(default) if !default.starts_with(['[', '{']) && !default.is_empty() => {
                    assert_eq!(said, default, "[{section}] {key}");
                }
                Some("") => assert_eq!(said, "empty", "[{section}] {key}"),
                Some("{}") => assert_eq!(said, "none", "[{section}] {key}"),
                _ => assert!(!said.is_empty(), "[{section}] {key}"),
            }
        }
        assert_eq!(documented.len(), defaults.len(), "{documented:?}");
    }

    #[test]
    fn the_sample_for_systemd_makes_sense() {
        let sample = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/systemd/grange.toml"
        );
        let file = File::parse(&fs::read_to_string(sample).unwrap()).unwrap();
        assert!(file.coordinator.listen.ip().is_unspecified());
        let uncommented = fs::read_to_string(sample)
            .unwrap()
            .replace("# advertise", "advertise");
        assert!(File::parse(&uncommented).unwrap().cache.advertise.is_some());
    }

    #[test]
    fn the_variables_that_are_passed_on_are_documented() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
        let document = fs::read_to_string(document).unwrap();
        let listed = document
            .split("<!-- pass_environment -->")
            .nth(1)
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2);
        assert!(listed.eq(PASSED_ON));
    }
}
