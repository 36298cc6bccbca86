//! The keys of builds that have secrets, each with the values that the build's secrets had when it first asked:
//! a sealed file for each build, gone when it ends. So all its phases get the same, whatever becomes of the secret.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use protocol::{
    build::BuildId,
    canonical::{DecodeError, Reader, Writer},
    graph::TASKS_MAX,
    secret::{
        SEAL_KEY_BYTES, SECRET_BYTES_MAX, SECRETS_OF_UNIT_MAX, SealKey, SecretRef, SecretValue,
    },
};
use transport::draw_seal_key;
use zeroize::Zeroizing;

use super::{
    provider::FoundSecret,
    vault::{KeyInUse, VaultError},
};
use crate::directory;

const TAG: [u8; 4] = *b"gbky";
const VERSION: u8 = 2;
/// What a seal is for begins so; the build follows.
const CONTEXT: &str = "grange build key 1 ";
/// How many secrets a build may have found: those of all units of the largest batch.
const PINS_MAX: u64 = (TASKS_MAX * SECRETS_OF_UNIT_MAX) as u64;
/// How long the name of a secret, a stage and the id of a version may be, in bytes.
const TEXT_BYTES_MAX: u64 = 128 * 1024;

/// What a build names: the secret, its stage and its version. Which variable of which unit gets it, and which key
/// of the object, makes no difference.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Pin {
    id: String,
    stage: Option<String>,
    version: Option<String>,
}

impl From<&SecretRef> for Pin {
    fn from(reference: &SecretRef) -> Self {
        let SecretRef {
            variable: _,
            store: _,
            id,
            json_key: _,
            stage,
            version,
        } = reference;
        Self {
            id: id.clone(),
            stage: stage.clone(),
            version: version.clone(),
        }
    }
}

/// What was found first, by what it was found for.
pub(super) type Pins = BTreeMap<Pin, FoundSecret>;

/// What is kept of a build.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BuildKey {
    /// The key.
    pub(super) key: SealKey,
    /// Its secrets.
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

    /// Adds what was found to what is kept of a build, and gives all of it: what somebody else has found meanwhile
    /// for the same name goes before.
    pub(super) fn pin(
        &self,
        build: BuildId,
        (mut kept, pins): (BuildKey, Pins),
        key: &KeyInUse,
    ) -> Result<BuildKey, VaultError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(build);
        let there = key.read(&path, &context(build))?;
        if let Some(bytes) = &there {
            let decoded = decode(bytes);
            kept = decoded.map_err(|source| VaultError::Decode {
                path: path.clone(),
                source,
            })?;
        }
        for (pin, found) in pins {
            kept.pins.entry(pin).or_insert(found);
        }
        // Gone: the build has ended meanwhile, and nothing is kept of it any more.
        if there.is_some() {
            key.write(&path, &context(build), &encode(&kept))?;
        }
        Ok(kept)
    }

    /// Drops the key of a build, if there is one.
    pub(super) fn forget(&self, build: BuildId) -> io::Result<()> {
        let path = self.path(build);
        // A write that broke off has left a part of the same.
        for path in [path.with_extension(UNFINISHED), path] {
            remove(&path)?;
        }
        Ok(())
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
            let name = Path::new(&name).file_stem().and_then(OsStr::to_str);
            builds.extend(name.and_then(|name| name.parse::<BuildId>().ok()));
        }
        builds.sort_unstable();
        builds.dedup();
        Ok(builds)
    }
}

/// What files are called that are being written.
const UNFINISHED: &str = "new";

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => directory::sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn context(build: BuildId) -> Vec<u8> {
    format!("{CONTEXT}{build}").into_bytes()
}

fn encode(kept: &BuildKey) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::new(TAG, VERSION);
    writer.bytes(kept.key.expose());
    writer.number(kept.pins.len() as u64);
    for (pin, found) in &kept.pins {
        writer.bytes(pin.id.as_bytes());
        for part in [&pin.stage, &pin.version] {
            // None of them is empty where it is there.
            writer.bytes(part.as_deref().unwrap_or_default().as_bytes());
        }
        writer.bytes(found.version.as_bytes());
        writer.bytes(found.value.expose());
    }
    Zeroizing::new(writer.finish())
}

fn decode(bytes: &[u8]) -> Result<BuildKey, DecodeError> {
    let mut reader = Reader::new(bytes, TAG, VERSION)?;
    let key = reader.bytes("key", SEAL_KEY_BYTES as u64)?;
    let key = <[u8; SEAL_KEY_BYTES]>::try_from(key).map_err(|_| reader.refuse("key"))?;
    let mut pins = Pins::new();
    for _ in 0..reader.count("number of secrets", PINS_MAX)? {
        let pin = Pin {
            id: text(&mut reader, "name of secret")?,
            stage: Some(text(&mut reader, "stage")?).filter(|stage| !stage.is_empty()),
            version: Some(text(&mut reader, "version")?).filter(|version| !version.is_empty()),
        };
        let version = text(&mut reader, "version found")?;
        let value = reader.bytes("value", SECRET_BYTES_MAX as u64)?.to_vec();
        let value = SecretValue::new(value).map_err(|_| reader.refuse("value"))?;
        pins.insert(pin, FoundSecret { version, value });
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
