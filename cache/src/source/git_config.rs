//! Git's settings, as far as a build needs them: where things came from, and how the repository is
//! kept. Credentials, extra headers, rewrites of addresses, includes, and commands that git would run are
//! left out.
//!
//! What is kept is listed, what is not listed goes: a setting that nobody thought of is one that may
//! hold a secret.

use gix_config::{
    File,
    file::{Metadata, init::Options},
};

/// Settings that are kept: section, then names in lower case.
const KEPT: &[(&str, &[&str])] = &[
    ("branch", &["merge", "rebase", "remote"]),
    (
        "core",
        &[
            "abbrev",
            "autocrlf",
            "bare",
            "compression",
            "eol",
            "filemode",
            "ignorecase",
            "logallrefupdates",
            "longpaths",
            "precomposeunicode",
            "quotepath",
            "repositoryformatversion",
            "safecrlf",
            "sharedrepository",
            "sparsecheckout",
            "sparsecheckoutcone",
            "symlinks",
        ],
    ),
    (
        "extensions",
        &[
            "compatobjectformat",
            "objectformat",
            "partialclone",
            "refstorage",
            "worktreeconfig",
        ],
    ),
    ("init", &["defaultbranch"]),
    ("lfs", &["repositoryformatversion"]),
    (
        "remote",
        &[
            "fetch",
            "mirror",
            "partialclonefilter",
            "promisor",
            "prune",
            "pushurl",
            "tagopt",
            "url",
        ],
    ),
    ("submodule", &["active", "branch", "url"]),
    ("user", &["email", "name"]),
];

/// Why settings could not be cleaned.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct GitConfigError {
    /// What is wrong with them.
    message: String,
}

fn wrong(error: impl std::fmt::Display) -> GitConfigError {
    GitConfigError {
        message: error.to_string(),
    }
}

/// The settings in `text` that may go along, with what is secret in addresses taken out.
///
/// # Errors
///
/// If `text` is nothing that git could read.
pub(super) fn clean(text: &[u8]) -> Result<Vec<u8>, GitConfigError> {
    let options = Options::default();
    let file = File::from_bytes_no_includes(text, Metadata::default(), options).map_err(wrong)?;
    let mut clean = File::default();
    for section in file.sections() {
        let header = section.header();
        let name = header.name().to_string().to_lowercase();
        let Some((_, kept)) = KEPT.iter().find(|(kept, _)| *kept == name) else {
            continue;
        };
        let subsection = header.subsection_name().map(ToOwned::to_owned);
        let mut target = clean.new_section(&name, subsection).map_err(wrong)?;
        let mut names: Vec<String> = section.value_names().collect();
        names.dedup();
        for value_name in names {
            let lower = value_name.to_lowercase();
            if !kept.contains(&lower.as_str()) {
                continue;
            }
            for value in section.values(&value_name) {
                let value = value.to_string();
                let value = if lower.ends_with("url") {
                    without_secret(&value)
                } else {
                    value
                };
                target.push(&lower, value.as_str()).map_err(wrong)?;
            }
        }
    }
    Ok(clean.to_bstring().into())
}

/// An address without what lets one in: `https://me:secret@host/` becomes `https://host/`, and of
/// `ssh://git:secret@host/` the name stays, which says how to connect and opens nothing.
fn without_secret(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let Some((who, host)) = authority.rsplit_once('@') else {
        return address.to_owned();
    };
    let user = who.split(':').next().unwrap_or_default();
    if scheme.ends_with("ssh") && !user.is_empty() {
        format!("{scheme}://{user}@{host}{path}")
    } else {
        format!("{scheme}://{host}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_secrets() {
        let check = |address, expected| assert_eq!(without_secret(address), expected);
        check(
            "https://me:hunter2@example.org/r.git",
            "https://example.org/r.git",
        );
        check(
            "https://token@example.org/r.git",
            "https://example.org/r.git",
        );
        check(
            "https://me:a@b@example.org:8443/r",
            "https://example.org:8443/r",
        );
        check("https://example.org/a@b", "https://example.org/a@b");
        check("ssh://git:hunter2@example.org/r", "ssh://git@example.org/r");
        check("git@example.org:r.git", "git@example.org:r.git");
        check("../sibling", "../sibling");
    }

    #[test]
    fn what_lets_one_in_and_what_git_would_run_is_left_out() {
        let text = b"
[core]
\trepositoryformatversion = 0
\tfileMode = true
\tsshCommand = hunter2
\thooksPath = /hunter2
\tfsmonitor = hunter2
[remote \"origin\"]
\turl = https://me:hunter2@example.org/r.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
\tfetch = +refs/tags/*:refs/tags/*
[http \"https://example.org/\"]
\textraheader = AUTHORIZATION: basic hunter2
[url \"https://hunter2@example.org/\"]
\tinsteadOf = https://example.org/
[credential]
\thelper = store --file=hunter2
[include]
\tpath = hunter2
[includeIf \"gitdir:/\"]
\tpath = hunter2
[alias]
\tx = !hunter2
";
        let clean = String::from_utf8(clean(text).unwrap()).unwrap();
        assert!(!clean.contains("hunter2"), "{clean}");
        for kept in [
            "repositoryformatversion = 0",
            "https://example.org/r.git",
            "refs/tags/*",
        ] {
            assert!(clean.contains(kept), "{kept}: {clean}");
        }
        assert_eq!(clean.matches("fetch = ").count(), 2, "{clean}");
    }

    #[test]
    fn what_is_no_config_is_refused() {
        assert!(clean(b"[core\nx").is_err());
    }
}
