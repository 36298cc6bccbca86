//! The keys of builds that have secrets, each with the versions that the build's secrets have: a small
//! sealed file for each build, gone when it ends.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use protocol::{
    build::BuildId,
    canonical::{DecodeError, Reader, Writer},
    graph::TASKS_MAX,
    secret::{SEAL_KEY_BYTES, SECRETS_OF_UNIT_MAX, SealKey},
};
use transport::draw_seal_key;
use zeroize::Zeroizing;

use super::vault::{KeyInUse, VaultError};
use crate::directory;

const TAG: [u8; 4] = *b"gbky";
const VERSION: u8 = 1;
/// What a seal is for begins so; the build follows.
const CONTEXT: &str = "grange build key 1 ";
/// How many versions a build may have found: those of all units of the largest batch.
const PINS_MAX: u64 = (TASKS_MAX * SECRETS_OF_UNIT_MAX) as u64;
/// How long the name of a variable and the id of a version may be, in bytes.
const TEXT_BYTES_MAX: u64 = 128 * 1024;

/// By unit and variable, which version of its secret was found first.
pub(super) type Pins = BTreeMap<(u32, String), String>;

/// What is kept of a build.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BuildKey {
    /// The key.
    pub(super) key: SealKey,
    /// The versions of its secrets.
    pub(super) pins: Pins,
}

/// The keys of builds.
#[derive(Debug)]
pub(super) struct BuildKeys {
    directory: PathBuf,
    /// Held while one is made, so that two phases of a build never get two keys.
    making: Mutex<()>,
}

impl BuildKeys {
    /// Those in `directory`, which need not be there.
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            making: Mutex::new(()),
        }
    }

    fn path(&self, build: BuildId) -> PathBuf {
        self.directory.join(build.to_string())
    }

    /// What is kept of a build; a new key, kept at once, if nothing is.
    pub(super) fn of(&self, build: BuildId, key: &KeyInUse) -> Result<BuildKey, VaultError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(build);
        if let Some(bytes) = key.read(&path, &context(build))? {
            return decode(&bytes).map_err(|source| VaultError::Decode { path, source });
        }
        let made = BuildKey {
            key: draw_seal_key(),
            pins: Pins::new(),
        };
        key.write(&path, &context(build), &encode(&made))?;
        Ok(made)
    }

    /// Adds versions to what is kept of a build.
    pub(super) fn pin(
        &self,
        build: BuildId,
        mut pins: Pins,
        key: &KeyInUse,
    ) -> Result<(), VaultError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(build);
        // Gone: the build has ended meanwhile.
        let Some(bytes) = key.read(&path, &context(build))? else {
            return Ok(());
        };
        let decoded = decode(&bytes);
        let mut kept = decoded.map_err(|source| VaultError::Decode {
            path: path.clone(),
            source,
        })?;
        kept.pins.append(&mut pins);
        key.write(&path, &context(build), &encode(&kept))
    }

    /// Drops the key of a build, if there is one.
    pub(super) fn forget(&self, build: BuildId) -> io::Result<()> {
        let path = self.path(build);
        match fs::remove_file(&path) {
            Ok(()) => directory::sync_parent(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The builds whose keys are kept.
    pub(super) fn builds(&self) -> io::Result<Vec<BuildId>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut builds = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            builds.extend(name.to_str().and_then(|name| name.parse::<BuildId>().ok()));
        }
        Ok(builds)
    }
}

fn context(build: BuildId) -> Vec<u8> {
    format!("{CONTEXT}{build}").into_bytes()
}

fn encode(kept: &BuildKey) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::new(TAG, VERSION);
    writer.bytes(kept.key.expose());
    writer.number(kept.pins.len() as u64);
    for ((unit, variable), version) in &kept.pins {
        writer.number(u64::from(*unit));
        writer.bytes(variable.as_bytes());
        writer.bytes(version.as_bytes());
    }
    Zeroizing::new(writer.finish())
}

fn decode(bytes: &[u8]) -> Result<BuildKey, DecodeError> {
    let mut reader = Reader::new(bytes, TAG, VERSION)?;
    let key = reader.bytes("key", SEAL_KEY_BYTES as u64)?;
    let key = <[u8; SEAL_KEY_BYTES]>::try_from(key).map_err(|_| reader.refuse("key"))?;
    let mut pins = Pins::new();
    for _ in 0..reader.count("number of versions", PINS_MAX)? {
        let unit = u32::try_from(reader.number("unit")?).map_err(|_| reader.refuse("unit"))?;
        let variable = text(&mut reader, "variable")?;
        let version = text(&mut reader, "version")?;
        pins.insert((unit, variable), version);
    }
    reader.finish()?;
    Ok(BuildKey {
        key: SealKey::new(key),
        pins,
    })
}

fn text(reader: &mut Reader<'_>, what: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.bytes(what, TEXT_BYTES_MAX)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.refuse(what))
}
