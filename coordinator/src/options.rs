//! What a coordinator is told when it starts.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use protocol::name::Team;

use crate::build_url::is_pattern;

/// How long a build may run, by default: CodeBuild's default.
pub const BUILD_TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How long a batch may take unless its owner says otherwise: what CodeBuild allows by default.
pub const BATCH_TIME_LIMIT: Duration = Duration::from_secs(480 * 60);
/// How long a build may wait for a worker, by default: CodeBuild's default.
pub const QUEUE_TIME_LIMIT: Duration = Duration::from_secs(480 * 60);
/// How long a build that has ended is kept, by default.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many bytes of logs and artifacts builds that have ended may take, by default: 10 GiB.
pub const RETENTION_BYTES: u64 = 10 << 30;
/// The longest that a limit may be: ten years, which no sum of times overflows on.
const LIMIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What the key of the secrets is called, after the name of the data directory.
const SECRETS_KEY_SUFFIX: &str = ".secrets-key.pem";

/// The largest share of a team: more than that is to leave nothing to the others.
const SHARE_MAX: u32 = 1_000;

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen for workers, caches and clients (UDP). Port 0: any that is free, see
    /// [`Ready`](crate::Ready).
    pub listen: SocketAddr,
    /// Where the others reach it, if that is not where it listens.
    pub advertise: Option<SocketAddr>,
    /// The data directory, for this coordinator alone; made if need be.
    pub directory: PathBuf,
    /// The file with the key of what is kept of secrets, made with the first of them; `None`: one beside
    /// the data directory, called like it.
    pub secrets_key: Option<PathBuf>,
    /// Where to answer `/metrics` and `/healthz` (TCP); `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The team of the credentials in [`Ready`](crate::Ready).
    pub team: Team,
    /// How long a build may run, from the start of its first phase.
    pub build_time_limit: Duration,
    /// How long a batch may take with all of its builds.
    pub batch_time_limit: Duration,
    /// How long a build may wait until its first phase starts.
    pub queue_time_limit: Duration,
    /// How long a build that has ended is kept.
    pub retention: Duration,
    /// How many bytes of logs and artifacts builds that have ended may take; the oldest go first.
    pub retention_bytes: u64,
    /// How many times as large the share of each of these teams is as that of a team that is not here: 1 to
    /// 1,000.
    pub team_shares: BTreeMap<Team, u32>,
    /// Where builds have pages: an address of http with `{id}`, or `{project}` and `{number}`, in it; `None`:
    /// nowhere.
    pub build_url: Option<String>,
}

/// Why options cannot be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// It is no address, or the same for all builds. Write one with `{id}` in it.
    #[error(
        "`build_url` is `{found}`; it has to be an address of http or https with `{{id}}`, or `{{project}}` and \
         `{{number}}`, in it"
    )]
    BuildUrl {
        /// What it is.
        found: String,
    },
    /// A time is zero, or longer than ten years. Set it to something between.
    #[error("`{option}` is {found:?}; it has to be more than zero and at most ten years")]
    Time {
        /// Which.
        option: &'static str,
        /// What it is.
        found: Duration,
    },
    /// A team's share is zero, or larger than makes sense. Set it to something between.
    #[error("the share of team {team} is {found}; it has to be 1 to {SHARE_MAX}")]
    Share {
        /// Whose.
        team: Team,
        /// What it is.
        found: u32,
    },
    /// Nobody could connect to the address that the others are told. Name the machine's own.
    #[error("`advertise` is {found}, which names no machine and port")]
    Advertise {
        /// What it is.
        found: SocketAddr,
    },
    /// Who copies the data would have the key with it. Put it elsewhere.
    #[error("`secrets_key_file` is `{}`, which is among the farm's data", found.display())]
    SecretsKey {
        /// What it is.
        found: PathBuf,
    },
}

impl Options {
    /// The file with the key of what is kept of secrets. Not in the data directory, so that a copy of that
    /// alone gives nothing away.
    pub(crate) fn secrets_key(&self) -> PathBuf {
        let beside = || {
            let mut name = self.directory.file_name().unwrap_or_default().to_owned();
            name.push(SECRETS_KEY_SUFFIX);
            self.directory.with_file_name(name)
        };
        self.secrets_key.clone().unwrap_or_else(beside)
    }

    /// Checks what types do not.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense; the message names it.
    pub fn check(&self) -> Result<(), OptionsError> {
        let times = [
            ("build_time_limit", self.build_time_limit),
            ("batch_time_limit", self.batch_time_limit),
            ("queue_time_limit", self.queue_time_limit),
            ("retention", self.retention),
        ];
        for (option, found) in times {
            if found.is_zero() || LIMIT_MAX < found {
                return Err(OptionsError::Time { option, found });
            }
        }
        for (team, &found) in &self.team_shares {
            if !(1..=SHARE_MAX).contains(&found) {
                let team = team.clone();
                return Err(OptionsError::Share { team, found });
            }
        }
        if let Some(found) = self.build_url.as_ref().filter(|url| !is_pattern(url)) {
            let found = found.clone();
            return Err(OptionsError::BuildUrl { found });
        }
        // The data of the farm's other parts is beside the coordinator's.
        let data = self.directory.parent().unwrap_or(&self.directory);
        if let Some(found) = self
            .secrets_key
            .as_ref()
            .filter(|key| key.starts_with(data))
        {
            let found = found.clone();
            return Err(OptionsError::SecretsKey { found });
        }
        match self.advertise {
            Some(found) if found.port() == 0 || found.ip().is_unspecified() => {
                Err(OptionsError::Advertise { found })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            directory: "/nowhere".into(),
            secrets_key: None,
            metrics_listen: None,
            team: "main".parse().unwrap(),
            build_time_limit: BUILD_TIME_LIMIT,
            batch_time_limit: BATCH_TIME_LIMIT,
            queue_time_limit: QUEUE_TIME_LIMIT,
            retention: RETENTION,
            retention_bytes: RETENTION_BYTES,
            team_shares: BTreeMap::new(),
            build_url: None,
        }
    }

    #[test]
    fn the_key_of_the_secrets_is_not_among_the_data_and_is_refused_there() {
        let mut options = options();
        options.directory = "/srv/farm/coordinator".into();
        let beside = "/srv/farm/coordinator.secrets-key.pem";
        assert_eq!(options.secrets_key(), PathBuf::from(beside));
        options.secrets_key = Some("/run/key".into());
        assert_eq!(options.secrets_key(), PathBuf::from("/run/key"));
        assert_eq!(options.check(), Ok(()));
        options.secrets_key = Some("/srv/farm/key".into());
        let message = options.check().unwrap_err().to_string();
        assert!(message.contains("`/srv/farm/key`"), "{message}");
    }

    #[test]
    fn the_defaults_make_sense_and_what_does_not_is_named() {
        assert_eq!(options().check(), Ok(()));
        let mut wrong = options();
        wrong.queue_time_limit = Duration::ZERO;
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains("`queue_time_limit` is 0ns"), "{message}");
        wrong = options();
        wrong.retention = Duration::MAX;
        assert!(wrong.check().is_err());
        wrong = options();
        wrong.advertise = Some("0.0.0.0:7000".parse().unwrap());
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains("0.0.0.0:7000"), "{message}");
    }
}
