//! What a farm in this process is made of: where its parts listen and keep their data, from flags over
//! settings over defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use protocol::worker::Isolation;

use crate::{args::UpArgs, places::Places, settings::File};

/// What farm to start.
#[derive(Clone, Debug)]
pub(crate) struct FarmPlan {
    /// The coordinator keeps its data in `coordinator` below it.
    pub(crate) directory: PathBuf,
    /// The cache's store.
    pub(crate) cache_directory: PathBuf,
    /// Where the log of its store is; `None`: in it.
    pub(crate) cache_log_directory: Option<PathBuf>,
    /// Workers have `worker-1`, `worker-2` and so on below it.
    pub(crate) worker_directory: PathBuf,
    /// Where the coordinator listens.
    pub(crate) listen: SocketAddr,
    /// Where others reach it; `None`: where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    /// Where the cache listens.
    pub(crate) cache_listen: SocketAddr,
    /// Where others reach the cache, as the settings say.
    pub(crate) cache_advertise: Option<SocketAddr>,
    /// How many workers it has.
    pub(crate) workers: u32,
    /// How they keep builds apart; `None`: as the settings say.
    pub(crate) isolation: Option<Isolation>,
    /// The key of what the coordinator keeps of secrets: apart from the data, so that a copy of that alone gives
    /// nothing away.
    pub(crate) secrets_key: PathBuf,
    /// What builds must not see.
    pub(crate) hidden: Vec<PathBuf>,
    /// Whether metrics are served where the settings say.
    pub(crate) metrics: bool,
}

impl FarmPlan {
    /// A farm for one command: on free ports of loopback, with one worker and without metrics.
    pub(crate) fn for_one_command(settings: &File, places: &Places) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: free,
            advertise: None,
            cache_listen: free,
            cache_advertise: None,
            workers: 1,
            isolation: None,
            metrics: false,
            ..Self::on(None, settings, places)
        }
    }

    /// The farm of `grange up`.
    pub(crate) fn for_many(args: &UpArgs, settings: &File, places: &Places) -> Self {
        let mut plan = Self::on(args.data.as_deref(), settings, places);
        if let Some(listen) = args.listen {
            plan.listen = listen;
            plan.cache_listen = beside(listen, settings.cache.listen);
        }
        plan.advertise = args.advertise.or(plan.advertise);
        plan.workers = args.workers;
        plan.isolation = args.isolation;
        plan
    }

    /// A farm with its data in `data` or where the settings say, and everything else as they say.
    pub(crate) fn on(data: Option<&Path>, settings: &File, places: &Places) -> Self {
        let configured = |configured: &Option<PathBuf>| match data {
            Some(_) => None,
            None => configured.clone(),
        };
        let data = data.map(Path::to_owned);
        let directory = data.or_else(|| settings.coordinator.directory.clone());
        let directory = directory.unwrap_or_else(|| places.farm());
        let cache = configured(&settings.cache.directory);
        let worker = configured(&settings.worker.directory);
        let mut hidden = hidden(settings, places);
        hidden.push(absolute(&directory));
        Self {
            cache_log_directory: configured(&settings.cache.log_directory),
            cache_directory: cache.unwrap_or_else(|| directory.join("cache")),
            worker_directory: worker.unwrap_or_else(|| directory.clone()),
            directory,
            listen: settings.coordinator.listen,
            advertise: settings.coordinator.advertise,
            cache_listen: settings.cache.listen,
            cache_advertise: settings.cache.advertise,
            workers: 1,
            isolation: None,
            secrets_key: secrets_key(settings, places),
            hidden,
            metrics: true,
        }
    }

    /// Where others reach the cache that listens at `listens`, if not there: as the settings say, else at
    /// the coordinator's address, with its own port.
    pub(crate) fn cache_advertise(&self, listens: SocketAddr) -> Option<SocketAddr> {
        let beside_coordinator = self.advertise.filter(|_| listens.ip().is_unspecified());
        let beside_coordinator =
            beside_coordinator.map(|advertised| (advertised.ip(), listens.port()).into());
        self.cache_advertise.or(beside_coordinator)
    }
}

/// Where the cache listens if the coordinator listens at `listen`: at the same address on its own port,
/// and on any free port if the coordinator does.
fn beside(listen: SocketAddr, cache: SocketAddr) -> SocketAddr {
    match listen.port() {
        0 => listen,
        _ => (listen.ip(), cache.port()).into(),
    }
}

/// What builds on this machine must not see, as far as is known here: the data of services, with the
/// farm's authority, and the user's identities.
pub(crate) fn hidden(settings: &File, places: &Places) -> Vec<PathBuf> {
    let key = secrets_key(settings, places);
    let configured = [
        &settings.coordinator.directory,
        &settings.cache.directory,
        &settings.cache.log_directory,
        &settings.worker.directory,
    ];
    let configured = configured.into_iter().flatten().map(PathBuf::as_path);
    let all = configured.chain([places.data.as_path(), key.as_path()]);
    all.map(absolute).collect()
}

/// Where the key of the secrets is: as the settings say, else beside the user's settings.
fn secrets_key(settings: &File, places: &Places) -> PathBuf {
    let configured = settings.coordinator.secrets_key_file.clone();
    configured.unwrap_or_else(|| places.settings.join(SECRETS_KEY))
}

/// What the key of the secrets is called beside the user's settings.
const SECRETS_KEY: &str = "secrets-key.pem";

/// The path from the root on; as it is where the system does not say where this process is.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn places() -> Places {
        Places {
            data: "/home/a/data".into(),
            settings: "/home/a/settings".into(),
            cache: "/home/a/cache".into(),
        }
    }

    fn up(arguments: &[&str], settings: &str) -> FarmPlan {
        let cli = Cli::parse_from([&["grange", "up"], arguments].concat());
        let Command::Up(args) = cli.command else {
            panic!("it is `up`");
        };
        FarmPlan::for_many(&args, &File::parse(settings).unwrap(), &places())
    }

    const DIRECTORIES: &str = "
[coordinator]
directory = '/srv/farm'
metrics_listen = '127.0.0.1:9'
[cache]
directory = '/srv/cache'
[worker]
directory = '/srv/work'
";

    #[test]
    fn directories_come_from_the_settings_and_a_flag_goes_over_all_of_them() {
        let plan = up(&[], DIRECTORIES);
        assert_eq!(plan.directory, Path::new("/srv/farm"));
        assert_eq!(plan.cache_directory, Path::new("/srv/cache"));
        assert_eq!(plan.worker_directory, Path::new("/srv/work"));
        let plan = up(&["--data", "/other"], DIRECTORIES);
        assert_eq!(plan.directory, Path::new("/other"));
        assert_eq!(plan.cache_directory, Path::new("/other/cache"));
        assert_eq!(plan.worker_directory, Path::new("/other"));
        let plan = FarmPlan::for_one_command(&File::parse(DIRECTORIES).unwrap(), &places());
        assert_eq!(plan.cache_directory, Path::new("/srv/cache"));
        assert!(!plan.metrics);
    }

    #[test]
    fn builds_see_neither_the_farms_data_nor_the_users_identities() {
        let plan = up(&["--data", "/other"], DIRECTORIES);
        for path in [
            "/home/a/data",
            "/srv/farm",
            "/srv/cache",
            "/srv/work",
            "/other",
            "/home/a/settings/secrets-key.pem",
        ] {
            assert!(
                plan.hidden.iter().any(|hidden| hidden == Path::new(path)),
                "{path}"
            );
        }
    }

    #[test]
    fn the_key_of_the_secrets_is_not_among_the_farms_data() {
        for plan in [
            up(&[], DIRECTORIES),
            up(&["--data", "/other"], ""),
            up(&[], ""),
        ] {
            for data in [
                &plan.directory,
                &plan.cache_directory,
                &plan.worker_directory,
            ] {
                assert!(!plan.secrets_key.starts_with(data), "{plan:?}");
            }
        }
        let settings = "[coordinator]\nsecrets_key_file = '/run/key'";
        assert_eq!(up(&[], settings).secrets_key, Path::new("/run/key"));
    }

    #[test]
    fn the_cache_is_reached_where_the_coordinator_is() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let plan = up(
            &["--listen", "0.0.0.0:7500", "--advertise", "10.0.0.1:80"],
            "",
        );
        assert_eq!(plan.cache_listen, address("0.0.0.0:7421"));
        let advertised = plan.cache_advertise(plan.cache_listen);
        assert_eq!(advertised, Some(address("10.0.0.1:7421")));
        let plan = up(&["--listen", "127.0.0.1:0"], "");
        assert_eq!(plan.cache_listen, address("127.0.0.1:0"));
        assert_eq!(plan.cache_advertise(plan.cache_listen), None);
    }
}
