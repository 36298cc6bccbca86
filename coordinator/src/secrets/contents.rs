//! What the vault holds: secrets by team, project and name, each with its last versions. Pure.

use std::collections::BTreeMap;

use protocol::{
    canonical::{DecodeError, Reader, Writer},
    name::{NAME_BYTES_MAX, ProjectName, Team},
    secret::{
        SECRET_BYTES_MAX, SECRET_ID_BYTES_MAX, SecretId, SecretStage, SecretSummary, SecretValue,
        SecretVersion,
    },
    time::WallTime,
};
use zeroize::Zeroizing;

use super::provider::{FindError, FoundSecret, WantedVersion};

/// How many versions of a secret are kept: enough to go back, or to name one that another system still uses.
pub(super) const VERSIONS_MAX: usize = 10;
/// How many secrets there may be: what a farm of some hundred projects has.
pub(super) const SECRETS_MAX: usize = 10_000;
/// How many bytes all values may have together: the vault is in memory, and written whole.
pub(super) const CONTENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many secrets a team may have: a tenth of what there may be, so that no team takes another's room.
const TEAM_SECRETS_MAX: usize = SECRETS_MAX / 10;
/// How many bytes the values of a team may have together, an eighth of what there may be for the same reason.
const TEAM_BYTES_MAX: usize = CONTENTS_BYTES_MAX / 8;
/// How long the text may be that says who set a version, in bytes.
const BY_BYTES_MAX: u64 = 1024;
/// How long the id of a version may be, in bytes.
const VERSION_BYTES_MAX: u64 = 64;

const TAG: [u8; 4] = *b"gvlt";
const VERSION: u8 = 1;

/// Where a secret is. Those of a team itself come before those of its projects.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// Whose it is.
    pub(crate) team: Team,
    /// The project that it is for; `None`: all of the team's.
    pub(crate) project: Option<ProjectName>,
    /// Its name.
    pub(crate) id: SecretId,
}

/// A version of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Version {
    id: String,
    set: WallTime,
    by: String,
    value: SecretValue,
}

/// All secrets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Contents {
    /// The versions of each, the newest last; none is without any.
    secrets: BTreeMap<Place, Vec<Version>>,
}

/// Why there is no room for another version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// There are [`SECRETS_MAX`]: delete some.
    #[error("there are {SECRETS_MAX} secrets already, which is the most")]
    Secrets,
    /// They are too large together: delete some.
    #[error("the secrets would have more than {CONTENTS_BYTES_MAX} bytes together")]
    Bytes,
    /// The team has [`TEAM_SECRETS_MAX`]: delete some.
    #[error("the team has {TEAM_SECRETS_MAX} secrets already, which is the most")]
    TeamSecrets,
    /// Those of the team are too large together: delete some.
    #[error("the team's secrets would have more than {TEAM_BYTES_MAX} bytes together")]
    TeamBytes,
}

impl Contents {
    /// Adds a version to a secret; the oldest goes if there are too many.
    pub(super) fn set(
        &mut self,
        place: Place,
        (id, value): (String, SecretValue),
        (by, set): (String, WallTime),
    ) -> Result<(), NoRoom> {
        if !self.secrets.contains_key(&place) {
            if SECRETS_MAX <= self.secrets.len() {
                return Err(NoRoom::Secrets);
            }
            if TEAM_SECRETS_MAX <= self.of_team(&place.team).count() {
                return Err(NoRoom::TeamSecrets);
            }
        }
        // What goes for it makes room, or a vault that is full could not be changed any more.
        let goes = self.secrets.get(&place).and_then(|versions| {
            let is_full = VERSIONS_MAX <= versions.len();
            versions.first().filter(|_| is_full)
        });
        let goes = goes.map_or(0, |version| version.value.expose().len());
        let after = |bytes: usize| bytes - goes + value.expose().len();
        if TEAM_BYTES_MAX < after(bytes(self.of_team(&place.team))) {
            return Err(NoRoom::TeamBytes);
        }
        if CONTENTS_BYTES_MAX < after(bytes(self.secrets.values())) {
            return Err(NoRoom::Bytes);
        }
        let versions = self.secrets.entry(place).or_default();
        versions.push(Version { id, set, by, value });
        if VERSIONS_MAX < versions.len() {
            versions.remove(0);
        }
        Ok(())
    }

    /// The versions of each secret of a team.
    fn of_team(&self, team: &Team) -> impl Iterator<Item = &Vec<Version>> {
        let secrets = self.secrets.iter();
        let of_team = secrets.filter(move |(place, _)| place.team == *team);
        of_team.map(|(_, versions)| versions)
    }

    /// Takes a secret away; whether it was there.
    pub(super) fn delete(&mut self, place: &Place) -> bool {
        self.secrets.remove(place).is_some()
    }

    /// The secrets of a team, of all its projects or of one.
    pub(super) fn list(&self, team: &Team, project: Option<&ProjectName>) -> Vec<SecretSummary> {
        let is_wanted = |place: &Place| {
            place.team == *team && (project.is_none() || place.project.as_ref() == project)
        };
        let wanted = self.secrets.iter().filter(|(place, _)| is_wanted(place));
        wanted
            .map(|(place, versions)| SecretSummary {
                id: place.id.clone(),
                project: place.project.clone(),
                versions: summaries(versions),
            })
            .collect()
    }

    /// The wanted version of the secret in a place.
    pub(super) fn find(
        &self,
        place: &Place,
        wanted: WantedVersion<'_>,
    ) -> Result<FoundSecret, FindError> {
        let versions = self.secrets.get(place).ok_or(FindError::Unknown)?;
        let found = match wanted {
            WantedVersion::Id(wanted) => versions.iter().find(|version| version.id == wanted),
            WantedVersion::Stage(stage) => {
                let newest_first = versions.iter().rev();
                newest_first
                    .zip(STAGES)
                    .find_map(|(version, of)| (of.as_str() == stage).then_some(version))
            }
        };
        let found = found.ok_or_else(|| match wanted {
            WantedVersion::Id(version) => FindError::NoVersion {
                version: version.to_owned(),
            },
            WantedVersion::Stage(stage) => FindError::NoStage {
                stage: stage.to_owned(),
            },
        })?;
        Ok(FoundSecret {
            version: found.id.clone(),
            value: found.value.clone(),
        })
    }

    /// The bytes that are sealed.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new(TAG, VERSION);
        writer.number(self.secrets.len() as u64);
        for (place, versions) in &self.secrets {
            writer.bytes(place.team.as_str().as_bytes());
            let project = place.project.as_ref();
            writer.bytes(project.map_or(&[], |project| project.as_str().as_bytes()));
            writer.bytes(place.id.as_str().as_bytes());
            writer.number(versions.len() as u64);
            for version in versions {
                writer.bytes(version.id.as_bytes());
                writer.number(version.set.0);
                writer.bytes(version.by.as_bytes());
                writer.bytes(version.value.expose());
            }
        }
        Zeroizing::new(writer.finish())
    }

    /// Reads what was sealed.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, TAG, VERSION)?;
        let mut secrets = BTreeMap::new();
        for _ in 0..reader.count("number of secrets", SECRETS_MAX as u64)? {
            let place = decode_place(&mut reader)?;
            let mut versions = Vec::new();
            for _ in 0..reader.count("number of versions", VERSIONS_MAX as u64)? {
                versions.push(decode_version(&mut reader)?);
            }
            let is_in_order = secrets
                .last_key_value()
                .is_none_or(|(last, _)| *last < place);
            if versions.is_empty() || !is_in_order {
                return Err(reader.refuse("order of secrets"));
            }
            secrets.insert(place, versions);
        }
        reader.finish()?;
        Ok(Self { secrets })
    }
}

/// How many bytes values have together.
fn bytes<'a>(secrets: impl Iterator<Item = &'a Vec<Version>>) -> usize {
    let versions = secrets.flatten();
    versions.map(|version| version.value.expose().len()).sum()
}

/// The stages, of the newest version and of the one before.
const STAGES: [SecretStage; 2] = [SecretStage::AwsCurrent, SecretStage::AwsPrevious];

/// The versions without their values, the newest first.
fn summaries(versions: &[Version]) -> Vec<SecretVersion> {
    let stages = STAGES.map(Some).into_iter().chain(std::iter::repeat(None));
    let newest_first = versions.iter().rev().zip(stages);
    newest_first
        .map(|(version, stage)| SecretVersion {
            id: version.id.clone(),
            stage,
            set: version.set,
            by: version.by.clone(),
        })
        .collect()
}

fn decode_place(reader: &mut Reader<'_>) -> Result<Place, DecodeError> {
    let team = text(reader, "team", NAME_BYTES_MAX as u64)?;
    let project = text(reader, "project", NAME_BYTES_MAX as u64)?;
    let id = text(reader, "name of secret", SECRET_ID_BYTES_MAX as u64)?;
    Ok(Place {
        team: team.parse().map_err(|_| reader.refuse("team"))?,
        project: match project.as_str() {
            "" => None,
            project => Some(project.parse().map_err(|_| reader.refuse("project"))?),
        },
        id: id.parse().map_err(|_| reader.refuse("name of secret"))?,
    })
}

fn decode_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let id = text(reader, "version", VERSION_BYTES_MAX)?;
    let set = WallTime(reader.number("time")?);
    let by = text(reader, "who set it", BY_BYTES_MAX)?;
    let value = reader.bytes("value", SECRET_BYTES_MAX as u64)?.to_vec();
    let value = SecretValue::new(value).map_err(|_| reader.refuse("value"))?;
    Ok(Version { id, set, by, value })
}

fn text(reader: &mut Reader<'_>, what: &'static str, limit: u64) -> Result<String, DecodeError> {
    let bytes = reader.bytes(what, limit)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.refuse(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_team_takes_the_room_of_another() {
        let mut contents = Contents::default();
        let mut set = |team: &str, number: usize, bytes: usize| {
            let place = Place {
                team: team.parse().unwrap(),
                project: None,
                id: format!("secret-{number}").parse().unwrap(),
            };
            let value = SecretValue::new(vec![b'x'; bytes]).unwrap();
            contents.set(
                place,
                ("1".to_owned(), value),
                ("ann".to_owned(), WallTime(1)),
            )
        };
        let large = TEAM_BYTES_MAX / SECRET_BYTES_MAX;
        for number in 0..large {
            set("red", number, SECRET_BYTES_MAX).unwrap();
        }
        assert_eq!(set("red", large, 4), Err(NoRoom::TeamBytes));
        for number in 0..TEAM_SECRETS_MAX {
            set("blue", number, 4).unwrap();
        }
        assert_eq!(set("blue", TEAM_SECRETS_MAX, 4), Err(NoRoom::TeamSecrets));
        assert_eq!(set("blue", 0, 4), Ok(()), "a new version of what is there");
        assert_eq!(set("green", 0, SECRET_BYTES_MAX), Ok(()));
    }
}
