//! What of a git configuration may travel with a source. Pure.
//!
//! Taken out is what gives access (credentials, headers, user names and passwords in URLs), what sends
//! git elsewhere than the URL says, and what names files and programs of the machine that it was
//! written on. The rest is written anew, without comments: these may hold old passwords.

use std::collections::BTreeSet;

use gix_config::file::{Metadata, init::Options};

/// Whole sections that stay behind, in lower case.
const SECTIONS: [&str; 4] = ["credential", "include", "includeif", "url"];
/// Keys of any section that stay behind, in lower case.
const KEYS: [&str; 10] = [
    "askpass",
    "cookiefile",
    "extraheader",
    "fsmonitor",
    "gitproxy",
    "hookspath",
    "sshcommand",
    "sslcert",
    "sslkey",
    "pass",
];
/// What keys do not contain that travel.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "authorization"];

/// Why a file is no git configuration.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What the parser says.
    message: String,
}

/// The configuration `bytes` without what must not travel.
///
/// # Errors
///
/// If the bytes are no git configuration.
pub(super) fn sanitize(bytes: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let file = gix_config::File::from_bytes_no_includes(bytes, Metadata::api(), Options::default());
    let file = file.map_err(|e| ConfigError {
        message: e.to_string(),
    })?;
    let mut out = Vec::new();
    for section in file.sections() {
        let header = section.header();
        let name = String::from_utf8_lossy(header.name()).into_owned();
        if SECTIONS.contains(&name.to_lowercase().as_str()) {
            continue;
        }
        out.extend_from_slice(b"[");
        out.extend_from_slice(name.as_bytes());
        if let Some(subsection) = header.subsection_name() {
            out.extend_from_slice(b" \"");
            for byte in without_userinfo(subsection) {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
        out.extend_from_slice(b"]\n");
        let body = section.body();
        let mut written = BTreeSet::new();
        for key in body.value_names() {
            if stays_behind(&key) || !written.insert(key.to_lowercase()) {
                continue;
            }
            let mut values = body.values(&key);
            // A key alone means "true", but is given as an empty value, which means "false".
            let alone = body.value_implicit(&key) == Some(None);
            if alone {
                values.pop();
            }
            for value in values {
                out.extend_from_slice(format!("\t{key} = ").as_bytes());
                write_value(&mut out, &without_userinfo(&value));
            }
            if alone {
                out.extend_from_slice(format!("\t{key}\n").as_bytes());
            }
        }
    }
    Ok(out)
}

fn stays_behind(key: &str) -> bool {
    let key = key.to_lowercase();
    KEYS.contains(&key.as_str())
        || key.ends_with("pass")
        || SECRET_WORDS.iter().any(|word| key.contains(word))
}

fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            byte => out.push(byte),
        }
    }
    out.extend_from_slice(b"\"\n");
}

/// `text` with the user names and passwords taken out of all URLs in it. A user name stays where it is
/// an address and no secret: over SSH.
fn without_userinfo(text: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"://";
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        let (before, after) = rest.split_at(at + MARK.len());
        out.extend_from_slice(before);
        let ends = |byte: &u8| b"/?#\"' \t\n".contains(byte);
        let end = after.iter().position(ends).unwrap_or(after.len());
        let (authority, next) = after.split_at(end);
        match authority.iter().rposition(|&byte| byte == b'@') {
            None => out.extend_from_slice(authority),
            Some(host) => {
                let is_ssh = before[..at].ends_with(b"ssh") || before[..at].ends_with(b"ssh+git");
                let user = authority[..host].split(|&byte| byte == b':').next();
                if let Some(user) = user
                    && is_ssh
                {
                    out.extend_from_slice(user);
                    out.push(b'@');
                }
                out.extend_from_slice(&authority[host + 1..]);
            }
        }
        rest = next;
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, after: &str) {
        let sanitized = sanitize(before.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(sanitized).unwrap(), after);
    }

    #[test]
    fn what_a_build_needs_stays() {
        check(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tignorecase\n\
             [remote \"origin\"]\n\turl = git@github.com:a/b.git\n\
             \tfetch = +refs/heads/*:refs/remotes/origin/*\n\tfetch = +refs/tags/*:refs/tags/*\n",
            "[core]\n\trepositoryformatversion = \"0\"\n\tbare = \"false\"\n\tignorecase\n\
             [remote \"origin\"]\n\turl = \"git@github.com:a/b.git\"\n\
             \tfetch = \"+refs/heads/*:refs/remotes/origin/*\"\n\tfetch = \"+refs/tags/*:refs/tags/*\"\n",
        );
    }

    #[test]
    fn what_gives_access_or_leads_elsewhere_stays_behind() {
        check(
            "# https://old:password@host/\n\
             [credential]\n\thelper = store\n\
             [Credential \"https://host\"]\n\tusername = me\n\
             [http \"https://me:pw@host/\"]\n\textraHeader = AUTHORIZATION: basic eA==\n\tsslVerify = true\n\
             [url \"https://token@host/\"]\n\tinsteadOf = git@host:\n\tpushInsteadOf = x:\n\
             [include]\n\tpath = ~/.secret\n\
             [includeIf \"gitdir:~/\"]\n\tpath = ~/.other\n\
             [core]\n\tsshCommand = ssh -i ~/.ssh/key\n\taskPass = /bin/x\n\
             \tfsmonitor = /bin/x\n\thooksPath = /x\n\teditor = vi\n\
             [sendemail]\n\tsmtpPass = pw\n\
             [gitlab]\n\ttoken = abc ; and a comment\n",
            "[http \"https://host/\"]\n\tsslVerify = \"true\"\n[core]\n\teditor = \"vi\"\n\
             [sendemail]\n[gitlab]\n",
        );
    }

    #[test]
    fn urls_lose_their_passwords() {
        let check = |before: &str, after: &str| {
            let stripped = without_userinfo(before.as_bytes());
            assert_eq!(String::from_utf8(stripped).unwrap(), after);
        };
        check("https://me:pw@host/a@b", "https://host/a@b");
        check("https://ghp_token@host", "https://host");
        check("https://a:p@ss@host/", "https://host/");
        check("ssh://git:pw@host/x", "ssh://git@host/x");
        check("git@host:path", "git@host:path");
        check(
            "a https://x:y@b/ c http://z@d e",
            "a https://b/ c http://d e",
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(sanitize(b"[core\nx").is_err());
        assert!(sanitize(b"\x00\xff").is_err());
        assert_eq!(sanitize(b"").unwrap(), b"");
    }
}
