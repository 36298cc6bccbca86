//! Where things lie on this machine: settings, data, the identities for each farm.

use std::{net::SocketAddr, path::PathBuf};

use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};

use crate::error::CommandError;

/// The user's directories.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Where data is kept: `~/.local/share/grange`.
    pub(crate) data: PathBuf,
    /// Where settings are kept: `~/.config/grange`.
    pub(crate) settings: PathBuf,
    /// Where things are kept that can be made again: `~/.cache/grange`.
    pub(crate) cache: PathBuf,
}

impl Places {
    /// Finds them.
    ///
    /// # Errors
    ///
    /// If the user has no home directory.
    pub(crate) fn find() -> Result<Self, CommandError> {
        let names = AppStrategyArgs {
            top_level_domain: "dev".to_owned(),
            author: "grange".to_owned(),
            app_name: "grange".to_owned(),
        };
        let strategy = choose_app_strategy(names).map_err(|error| {
            CommandError::usage(error).hint("set HOME, or name every directory")
        })?;
        Ok(Self {
            data: strategy.data_dir(),
            settings: strategy.config_dir(),
            cache: strategy.cache_dir(),
        })
    }

    /// Where settings are looked for first: beside what is worked on.
    pub(crate) fn settings_here() -> PathBuf {
        PathBuf::from("grange.toml")
    }

    /// Where settings are looked for then: the user's own.
    pub(crate) fn settings_of_user(&self) -> PathBuf {
        self.settings.join("grange.toml")
    }

    /// Where a farm on this machine keeps its data unless told otherwise.
    pub(crate) fn farm(&self) -> PathBuf {
        self.data.join("farm")
    }

    /// Where it is kept what was put into the cache from which directory: `~/.cache/grange/trees`.
    pub(crate) fn indices(&self) -> PathBuf {
        self.cache.join("trees")
    }

    /// Where the identity lies by which commands go to the farm at `address`, however that was typed.
    pub(crate) fn identity(&self, address: SocketAddr) -> PathBuf {
        let name: String = address
            .to_string()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        self.data.join("identities").join(name)
    }
}
