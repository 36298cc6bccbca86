//! What a farm in one process leaves in its data directory while it runs, so that other commands of the
//! same user find it there: its address, what it runs for, and an identity.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use transport::Credentials;

use crate::{embedded::Running, error::CommandError, farm::Farm};

/// The directory below the farm's.
const DIRECTORY: &str = "running";
/// The file in it, beside the identity.
const FILE: &str = "farm.json";

/// What a farm in one process runs for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lifetime {
    /// One command: it ends with that.
    OneCommand,
    /// All who come, until somebody stops it.
    Service,
}

/// What is written.
#[derive(Debug, Deserialize, Serialize)]
struct Written {
    address: SocketAddr,
    lifetime: Lifetime,
}

/// The word of a running farm; taken back when dropped.
#[derive(Debug)]
pub(crate) struct Beacon {
    directory: PathBuf,
}

impl Beacon {
    /// Says that the farm with its data in `directory` runs.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn light(
        directory: &Path,
        running: &Running,
        lifetime: Lifetime,
    ) -> Result<Self, CommandError> {
        let beacon = Self {
            directory: directory.join(DIRECTORY),
        };
        let saved = running.admin.save(&beacon.directory);
        saved.map_err(CommandError::farm)?;
        let written = Written {
            address: running.address,
            lifetime,
        };
        let path = beacon.directory.join(FILE);
        serde_json::to_vec(&written)
            .map_err(anyhow::Error::new)
            .and_then(|text| Ok(fs::write(&path, text)?))
            .with_context(|| format!("failed to write `{}`", path.display()))
            .map_err(CommandError::farm)?;
        Ok(beacon)
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        // What is left says nothing: the coordinator's lock is what counts.
        let _left = fs::remove_dir_all(&self.directory);
    }
}

/// Connects to the farm that runs with its data in `directory`; also says what it runs for.
///
/// # Errors
///
/// If none says that it runs, or it cannot be reached.
pub(crate) async fn follow(directory: &Path) -> Result<(Farm, Lifetime), CommandError> {
    let directory = directory.join(DIRECTORY);
    let path = directory.join(FILE);
    let text = fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()));
    let written: Written = text
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .map_err(CommandError::farm)?;
    let credentials = Credentials::load(&directory).map_err(CommandError::farm)?;
    let credentials =
        credentials.ok_or_else(|| CommandError::farm(anyhow!("the farm left no identity")))?;
    let farm = Farm::connect(written.address, &credentials).await?;
    Ok((farm, written.lifetime))
}
