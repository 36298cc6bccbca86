//! Sources that are archives: where they are, of which format, and what they have to be.

use serde::{Deserialize, Serialize};

use crate::git::URL_BYTES_MAX;

/// The protocols that an archive can be fetched over. Which of them a worker uses is its owner's to say.
pub const PROTOCOLS: [&str; 3] = ["https", "http", "file"];
/// How many characters a SHA-256 has.
const SHA256_CHARS: usize = 64;

/// An archive that somebody serves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSource {
    /// Where it is; the end of its path says the format.
    pub url: String,
    /// The SHA-256 that it has to have, in lower-case hex; `None`: any.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// How an archive holds its files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ArchiveFormat {
    /// `.zip`.
    Zip,
    /// `.tar`.
    Tar,
    /// `.tar.gz`, `.tgz`.
    TarGz,
    /// `.tar.zst`.
    TarZst,
}

impl ArchiveFormat {
    const ALL: [Self; 4] = [Self::Zip, Self::Tar, Self::TarGz, Self::TarZst];

    /// A word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
        }
    }

    /// The format that [`as_str`](Self::as_str) calls so.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }
}

/// The ends of paths by which formats are known.
const FORMATS: [(&str, ArchiveFormat); 5] = [
    (".zip", ArchiveFormat::Zip),
    (".tar", ArchiveFormat::Tar),
    (".tar.gz", ArchiveFormat::TarGz),
    (".tgz", ArchiveFormat::TarGz),
    (".tar.zst", ArchiveFormat::TarZst),
];

/// Why an archive cannot be fetched as it is named.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ArchiveSourceError {
    /// It is empty, too long, or holds spaces or control characters: no archive is there.
    #[error("`{url}` is no address of an archive")]
    Url {
        /// The address.
        url: String,
    },
    /// The protocol is not one of [`PROTOCOLS`]: put it where one of them reaches it.
    #[error("`{protocol}` is no protocol to fetch an archive over; there are {}", PROTOCOLS.join(", "))]
    Protocol {
        /// Which.
        protocol: String,
    },
    /// It has a name or a password in it, which everybody would see who looks at the project.
    #[error("the address of an archive has somebody's name in it, which would be shown")]
    User,
    /// Nothing says what it is: name one whose path says it.
    #[error(
        "nobody can tell what `{url}` is by its end; there are .zip, .tar, .tar.gz, .tgz and .tar.zst"
    )]
    Format {
        /// The address.
        url: String,
    },
    /// It is no SHA-256: 64 characters of hex.
    #[error("`{found}` is no SHA-256, which has {SHA256_CHARS} characters of 0-9 and a-f")]
    Sha256 {
        /// What was named.
        found: String,
    },
}

impl ArchiveSource {
    /// Says whether it can be fetched, and how it holds its files.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self) -> Result<ArchiveFormat, ArchiveSourceError> {
        self.protocol()?;
        if let Some(found) = &self.sha256
            && !is_sha256(found)
        {
            let found = found.clone();
            return Err(ArchiveSourceError::Sha256 { found });
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let path = path.to_ascii_lowercase();
        let mut formats = FORMATS.into_iter();
        let found = formats.find(|(end, _)| path.ends_with(end));
        found.map(|(_, format)| format).ok_or_else(|| {
            let url = self.url.clone();
            ArchiveSourceError::Format { url }
        })
    }

    /// The protocol that its address names.
    ///
    /// # Errors
    ///
    /// If it is no address of an archive.
    pub fn protocol(&self) -> Result<&str, ArchiveSourceError> {
        let url = self.url.as_str();
        let wrong = || ArchiveSourceError::Url {
            url: url.to_owned(),
        };
        let is_plain = !url.contains(|c: char| c.is_control() || c.is_whitespace());
        if URL_BYTES_MAX < url.len() || !is_plain {
            return Err(wrong());
        }
        let (protocol, rest) = url.split_once("://").ok_or_else(wrong)?;
        if !PROTOCOLS.contains(&protocol) {
            let protocol = protocol.to_owned();
            return Err(ArchiveSourceError::Protocol { protocol });
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.contains('@') {
            return Err(ArchiveSourceError::User);
        }
        if rest.is_empty() || host.is_empty() && protocol != "file" {
            return Err(wrong());
        }
        Ok(protocol)
    }
}

/// Whether `text` is a SHA-256 as it is compared: in lower-case hex.
pub fn is_sha256(text: &str) -> bool {
    text.len() == SHA256_CHARS
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(url: &str) -> ArchiveSource {
        ArchiveSource {
            url: url.to_owned(),
            sha256: None,
        }
    }

    #[test]
    fn the_end_of_the_path_says_the_format_whatever_is_asked_behind_it() {
        for (url, format) in [
            ("https://example.org/a.ZIP", ArchiveFormat::Zip),
            (
                "https://example.org/a-1.2.tar.gz?token=x.zip",
                ArchiveFormat::TarGz,
            ),
            ("http://example.org/a.tgz#zip", ArchiveFormat::TarGz),
            ("file:///srv/a.tar", ArchiveFormat::Tar),
            ("https://example.org/a.tar.zst", ArchiveFormat::TarZst),
        ] {
            assert_eq!(archive(url).check(), Ok(format), "{url}");
            assert_eq!(ArchiveFormat::named(format.as_str()), Some(format));
        }
        for url in ["https://example.org/a.7z", "https://example.org/zip"] {
            let found = archive(url).check();
            assert!(
                matches!(found, Err(ArchiveSourceError::Format { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn addresses_that_are_none_or_tell_a_name_are_refused() {
        for url in [
            "",
            "a.zip",
            "--output=/x.zip",
            "s3://bucket/a.zip",
            "ftp://example.org/a.zip",
            "https:///a.zip",
            "https://bob:secret@example.org/a.zip",
            "https://token@example.org/a.zip",
            "https://example.org/a b.zip",
            "https://example.org/a\n.zip",
        ] {
            assert!(archive(url).check().is_err(), "{url}");
        }
    }

    #[test]
    fn a_digest_is_64_characters_of_hex() {
        let check = |sha256: &str| {
            let source = ArchiveSource {
                sha256: Some(sha256.to_owned()),
                ..archive("https://example.org/a.zip")
            };
            source.check().is_ok()
        };
        assert!(check(&"0f".repeat(32)));
        for wrong in ["", "0f", &"0F".repeat(32), &"0g".repeat(32)] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
