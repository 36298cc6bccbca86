//! Sources that the farm fetches with git: where they are, which version, and what may not be said of them.

use serde::{Deserialize, Serialize};

use crate::secret::{SECRET_REFERENCE_BYTES_MAX, SecretRef};

/// How long the address of a repository may be, in bytes: what browsers and servers take.
pub const URL_BYTES_MAX: usize = 2048;
/// How long the name of a version may be, in bytes: git itself refuses references of more.
pub const VERSION_BYTES_MAX: usize = 255;
/// The greatest depth of a clone that is not the whole history: as CodeBuild has it.
pub const DEPTH_MAX: u32 = 25;
/// The protocols that a repository can be fetched over. Which of them a worker uses is its owner's to say.
pub const PROTOCOLS: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// A repository, and which version of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// Where it is: `https://…`, `ssh://…`, `user@host:path`.
    pub url: String,
    /// A branch, a tag, a commit, a full reference, `pr/N`, or `REFERENCE^{COMMIT}`; `None`: what the
    /// repository has as its head.
    #[serde(default)]
    pub version: Option<String>,
    /// How many commits of history come along; `None`, 0 and more than [`DEPTH_MAX`]: all.
    #[serde(default)]
    pub depth: Option<u32>,
    /// Whether its submodules come along.
    #[serde(default)]
    pub submodules: bool,
    /// The secret that git is let in with, named as `secrets-manager` has it: a token, `user:password`, or a
    /// key of ssh; `None`: nobody asks for one.
    #[serde(default)]
    pub credential: Option<String>,
    /// Whether the certificate of its server is not checked: whoever is on the way can then say what the source
    /// is.
    #[serde(default)]
    pub insecure_ssl: bool,
}

/// A credential of a repository.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GitCredential {
    /// Where the repository is.
    pub url: String,
    /// The secret, under the [name](credential_variable) of its source.
    pub secret: SecretRef,
}

/// The protocols over which a credential is given: nobody on the way can read it there.
pub const CREDENTIAL_PROTOCOLS: [&str; 2] = ["https", "ssh"];

/// What the credentials of sources are delivered as, which no variable of a shell is called.
const CREDENTIAL: &str = "git-credential";

/// What the credential of a source is delivered as; `None`: of the primary one.
pub fn credential_variable(identifier: Option<&str>) -> String {
    match identifier {
        None => CREDENTIAL.to_owned(),
        Some(identifier) => format!("{CREDENTIAL}:{identifier}"),
    }
}

/// Whether a secret is the credential of a source, and no variable of the build.
pub fn is_credential(variable: &str) -> bool {
    let rest = variable.strip_prefix(CREDENTIAL);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Why a repository cannot be fetched as it is named.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GitSourceError {
    /// The address is empty or too long: name the repository.
    #[error("address of a repository has {bytes} bytes, 1 to {URL_BYTES_MAX} are allowed")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// It begins like an option, or holds spaces or control characters: no repository is called so.
    #[error("`{url}` is no address of a repository")]
    Url {
        /// The address.
        url: String,
    },
    /// The protocol is not one of [`PROTOCOLS`]: use another.
    #[error("`{protocol}` is no protocol to fetch a repository over; there are {}", PROTOCOLS.join(", "))]
    Protocol {
        /// Which.
        protocol: String,
    },
    /// It says who is let in, by a password or a token, which everybody would see who looks at the project: keep
    /// that as a secret. The address is not repeated.
    #[error(
        "the address of a repository says who is let in, which would be shown; keep `user:password` or a token as a \
         secret, and name that as the credential"
    )]
    Password,
    /// It would be given a credential over something else than [`CREDENTIAL_PROTOCOLS`], where others read it:
    /// use one of these.
    #[error("a credential is given over {} only, and not over `{protocol}`", CREDENTIAL_PROTOCOLS.join(" and "))]
    CredentialProtocol {
        /// What it is fetched over.
        protocol: String,
    },
    /// The name of its credential is empty or too long.
    #[error(
        "name of a credential has {bytes} bytes, 1 to {SECRET_REFERENCE_BYTES_MAX} are allowed"
    )]
    CredentialLength {
        /// How many it has.
        bytes: usize,
    },
    /// It cannot name a version: name a branch, a tag or a commit.
    #[error("`{version}` cannot be a branch, a tag or a commit")]
    Version {
        /// What was named.
        version: String,
    },
}

impl GitSource {
    /// The whole history of the head of a repository.
    pub const fn head_of(url: String) -> Self {
        Self {
            url,
            version: None,
            depth: None,
            submodules: false,
            credential: None,
            insecure_ssl: false,
        }
    }

    /// Says whether git may be given this address, this version and a credential for it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self) -> Result<(), GitSourceError> {
        let protocol = self.protocol()?;
        if let Some(credential) = &self.credential {
            let bytes = credential.len();
            if bytes == 0 || SECRET_REFERENCE_BYTES_MAX < bytes {
                return Err(GitSourceError::CredentialLength { bytes });
            }
            if !CREDENTIAL_PROTOCOLS.contains(&protocol) {
                let protocol = protocol.to_owned();
                return Err(GitSourceError::CredentialProtocol { protocol });
            }
        }
        self.version.as_deref().map_or(Ok(()), check_version)
    }

    /// The protocol that its address names.
    ///
    /// # Errors
    ///
    /// If it is no address of a repository.
    pub fn protocol(&self) -> Result<&str, GitSourceError> {
        let url = self.url.as_str();
        let bytes = url.len();
        if bytes == 0 || URL_BYTES_MAX < bytes {
            return Err(GitSourceError::Length { bytes });
        }
        let wrong = || GitSourceError::Url {
            url: url.to_owned(),
        };
        if url.starts_with('-') || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong());
        }
        if let Some((protocol, rest)) = url.split_once("://") {
            if !PROTOCOLS.contains(&protocol) {
                let protocol = protocol.to_owned();
                return Err(GitSourceError::Protocol { protocol });
            }
            let host = rest.split('/').next().unwrap_or_default();
            let user = host.rsplit_once('@').map(|(user, _)| user);
            // A token often stands in the place of a name, and a password may have a slash in it.
            let is_let_in = match protocol {
                "http" | "https" => {
                    user.is_some() || host.contains(':') && has_password(host, rest)
                }
                _ => user.is_some_and(|user| user.contains(':') || user.contains("%3")),
            };
            if is_let_in {
                return Err(GitSourceError::Password);
            }
            // A host that begins like an option would be one of ssh.
            let name = host.rsplit('@').next().unwrap_or_default();
            if rest.is_empty() || name.starts_with('-') {
                return Err(wrong());
            }
            return Ok(protocol);
        }
        // `helper::address` runs the program `git-remote-helper`.
        if let Some((helper, _)) = url.split_once("::") {
            let protocol = format!("{helper}::");
            return Err(GitSourceError::Protocol { protocol });
        }
        let (host, path) = url.split_once(':').ok_or_else(wrong)?;
        if path
            .split('/')
            .next()
            .is_some_and(|first| first.contains('@'))
        {
            return Err(GitSourceError::Password);
        }
        let name = host.rsplit('@').next().unwrap_or_default();
        if name.is_empty() || name.starts_with('-') || host.contains('/') || path.is_empty() {
            return Err(wrong());
        }
        Ok("ssh")
    }

    /// The depth, if not all of the history comes along.
    pub fn shallow(&self) -> Option<u32> {
        self.depth.filter(|depth| (1..=DEPTH_MAX).contains(depth))
    }
}

/// Whether what stands for a port is none, and a name for whoever is let in comes later.
fn has_password(host: &str, rest: &str) -> bool {
    let port = host.rsplit(':').next().unwrap_or_default();
    !port.bytes().all(|byte| byte.is_ascii_digit()) && rest.contains('@')
}

/// Who is told the credential of an address: its protocol, host and port. `None`: the address names no host.
pub fn origin(url: &str) -> Option<String> {
    let (protocol, host) = match url.split_once("://") {
        Some(("file", _)) => return None,
        Some((protocol, rest)) => (protocol, rest.split('/').next()?),
        None => ("ssh", url.split_once(':')?.0),
    };
    let host = host.rsplit('@').next()?;
    Some(format!("{protocol}://{host}"))
}

/// Says whether `version` can name a version of a repository.
///
/// # Errors
///
/// If it cannot.
pub fn check_version(version: &str) -> Result<(), GitSourceError> {
    let name = match version.split_once("^{") {
        None => version,
        Some((name, commit)) if commit.strip_suffix('}').is_some_and(is_commit) => name,
        Some(_) => "",
    };
    // What `git check-ref-format` refuses.
    let is_wrong = name.is_empty()
        || VERSION_BYTES_MAX < version.len()
        || name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.contains("..")
        || name.contains("//")
        || name.contains("@{")
        || name.contains(|c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c));
    if is_wrong {
        let version = version.to_owned();
        return Err(GitSourceError::Version { version });
    }
    Ok(())
}

/// Whether `text` is the whole name of a commit.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(url: &str) -> Option<String> {
        let source = GitSource::head_of(url.to_owned());
        source.protocol().ok().map(str::to_owned)
    }

    #[test]
    fn addresses_that_git_would_take_for_something_else_are_refused() {
        let good = [
            ("https://example.org/a/b.git", "https"),
            ("ssh://git@example.org/a", "ssh"),
            ("git@example.org:a/b.git", "ssh"),
            ("file:///srv/a", "file"),
        ];
        for (url, expected) in good {
            assert_eq!(protocol(url).as_deref(), Some(expected), "{url}");
        }
        for url in [
            "https://ghp_x@example.org/a/b",
            "http://ghp_x@example.org/a/b",
            "https://user%3Apass@example.org/x",
            "ssh://user%3Apass@example.org/x",
            "https://u:p/w@example.org/x",
            "u:pw@example.org:path",
        ] {
            let refused = GitSource::head_of(url.to_owned()).check().unwrap_err();
            assert_eq!(refused, GitSourceError::Password, "{url}");
        }
        let good = [
            "https://example.org:8443/@scope/a",
            "ssh://git@example.org:22/a",
        ];
        for url in good {
            assert!(protocol(url).is_some(), "{url}");
        }
        for url in [
            "",
            "--upload-pack=touch x",
            "-oProxyCommand=x",
            "ext::sh -c x",
            "ext::sh",
            "fd::17",
            "ssh://-oProxyCommand=x/a",
            "git@-oProxyCommand=x:a",
            "https://user:secret@example.org/a",
            "https://example.org/a b",
            "ftp://example.org/a",
            "/srv/a",
            "a/b:c",
            "https://",
        ] {
            assert_eq!(protocol(url), None, "{url}");
        }
    }

    #[test]
    fn a_credential_is_given_only_where_nobody_on_the_way_reads_it() {
        let check = |url: &str, credential: &str| {
            let source = GitSource {
                credential: Some(credential.to_owned()),
                ..GitSource::head_of(url.to_owned())
            };
            source.check()
        };
        assert_eq!(check("https://example.org/a", "token"), Ok(()));
        assert_eq!(check("git@example.org:a", "app/key:private"), Ok(()));
        for url in [
            "http://example.org/a",
            "git://example.org/a",
            "file:///srv/a",
        ] {
            let refused = check(url, "token").unwrap_err();
            let is_of_it = matches!(refused, GitSourceError::CredentialProtocol { .. });
            assert!(is_of_it, "{url}: {refused}");
        }
        let empty = check("https://example.org/a", "");
        assert_eq!(empty, Err(GitSourceError::CredentialLength { bytes: 0 }));
    }

    #[test]
    fn credentials_are_called_what_no_variable_is() {
        assert!(is_credential(&credential_variable(None)));
        assert!(is_credential(&credential_variable(Some("lib"))));
        for variable in ["git", "git_credential", "TOKEN", "git-credentials"] {
            assert!(!is_credential(variable), "{variable}");
        }
    }

    #[test]
    fn versions_that_git_would_take_for_something_else_are_refused() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let with_commit = format!("refs/heads/main^{{{commit}}}");
        for version in [
            "main",
            "release/1.2",
            "v1.0",
            "pr/7",
            "refs/tags/x",
            commit,
            &with_commit,
        ] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in [
            "", "-x", "a..b", "a b", "a:b", "a^", "x^{y}", "^{}", "a@{1}", "a*", "a\n",
        ] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_depth_of_nothing_or_of_more_than_25_is_all_of_the_history() {
        let depth = |depth| {
            let source = GitSource {
                depth,
                ..GitSource::head_of(String::new())
            };
            source.shallow()
        };
        assert_eq!(depth(Some(1)), Some(1));
        assert_eq!(depth(Some(25)), Some(25));
        for all in [None, Some(0), Some(26)] {
            assert_eq!(depth(all), None);
        }
    }

    #[test]
    fn a_credential_is_for_one_protocol_host_and_port() {
        let same = |a: &str, b: &str| origin(a) == origin(b);
        assert!(same("https://example.org/a", "https://example.org/b.git"));
        assert!(same("git@example.org:a", "ssh://git@example.org/b"));
        assert!(!same("https://example.org/a", "https://example.org:8443/a"));
        assert!(!same("https://example.org/a", "http://example.org/a"));
        assert!(!same("https://example.org/a", "https://mirror.example/a"));
        assert_eq!(origin("file:///srv/a"), None);
    }
}
