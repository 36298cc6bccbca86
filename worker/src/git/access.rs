//! What git is let in with, and where.
//!
//! Pure. A credential is in the environment of git and nowhere else: not in addresses, arguments and settings that
//! are written down. git asks for it by a helper that counts for one address only, so that redirects and
//! submodules that lead elsewhere get nothing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    git::{GitSource, credential_variable, origin},
    job::FetchSources,
    secret::SECRET_BYTES_MIN,
};

/// Who lets a token in where nobody has a name: what GitHub takes, and others do not look at.
const USER_OF_TOKENS: &str = "x-access-token";
/// How a key of ssh starts.
const KEY: &str = "-----BEGIN ";
/// How ssh goes on without asking anybody, with keys of its agent only.
const SSH: &str = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oIdentityFile=none";

/// A credential.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Credential<'a> {
    /// A name and a password, or a token in the place of one.
    Login {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
    /// A private key of ssh.
    Key(&'a str),
}

/// Reads the value of a secret: a key of ssh, `user:password`, or a token.
///
/// # Errors
///
/// Why it is none of these.
pub(crate) fn read(value: &[u8]) -> Result<Credential<'_>, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "its credential is not text")?;
    if text.starts_with(KEY) {
        return Ok(Credential::Key(text));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim_start().starts_with('{') {
        return Err("its credential is a JSON object; name one of its keys, as `NAME:KEY`");
    }
    if text.contains(['\r', '\n']) {
        return Err("its credential has several lines and is no key of ssh");
    }
    let (user, password) = text.split_once(':').unwrap_or((USER_OF_TOKENS, text));
    if password.is_empty() {
        return Err("its credential has no password");
    }
    if password.len() < SECRET_BYTES_MIN {
        return Err("its credential has a password that is too short to be masked in logs");
    }
    Ok(Credential::Login { user, password })
}

/// What git runs with.
#[derive(Default)]
pub(crate) struct Access {
    /// The variables of credentials, and of what lets git use them.
    pub(crate) variables: BTreeMap<String, Vec<u8>>,
    /// The variables that have keys of ssh, by identifier of the source.
    keys: BTreeMap<Option<String>, String>,
}

impl Access {
    /// Makes ready what `wanted` is fetched with; `secrets` are the credentials by the name under which they are
    /// delivered.
    ///
    /// # Errors
    ///
    /// If a credential is of no use: the source, and why.
    pub(crate) fn to_fetch<'a>(
        wanted: &'a FetchSources,
        secrets: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, (Option<&'a str>, &'a GitSource, &'static str)> {
        let mut access = Self::default();
        let mut settings = Vec::new();
        let primary = wanted.primary.iter().map(|git| (None, git));
        let secondary = wanted.secondary.iter();
        let secondary = secondary.map(|(identifier, git)| (Some(identifier.as_str()), git));
        let mut all: Vec<_> = primary.chain(secondary).enumerate().collect();
        let let_in: BTreeSet<&str> = all
            .iter()
            .filter(|(_, (identifier, _))| secrets.contains_key(&credential_variable(*identifier)))
            .map(|(_, (_, git))| git.url.trim_end_matches('/'))
            .collect();
        // One address can be the begin of another, and git takes the last setting that fits.
        all.sort_by_key(|(_, (_, git))| git.url.len());
        for (number, (identifier, git)) in all {
            if git.insecure_ssl {
                let checked = format!("http.{}.sslVerify", git.url);
                settings.push((checked, "false".to_owned()));
            }
            let Some(value) = secrets.get(&credential_variable(identifier)) else {
                if !let_in.is_empty() && !let_in.contains(git.url.trim_end_matches('/')) {
                    // Its address may be below another's.
                    settings.push((format!("credential.{}.helper", git.url), String::new()));
                }
                continue;
            };
            let wrong = |why| (identifier, git, why);
            let is_ssh = git.protocol() == Ok("ssh");
            match (read(value).map_err(wrong)?, is_ssh) {
                (Credential::Login { user, password }, false) => {
                    let helper = access.helper(number, (user, password));
                    sole_helper(&mut settings, &git.url, helper);
                    let path = format!("credential.{}.useHttpPath", git.url);
                    settings.push((path, "true".to_owned()));
                }
                (Credential::Key(key), true) => {
                    let name = format!("GRANGE_GIT_KEY_{number}");
                    let key = key.as_bytes().to_vec();
                    access.variables.insert(name.clone(), key);
                    access.keys.insert(identifier.map(str::to_owned), name);
                }
                (Credential::Login { .. }, true) => {
                    return Err(wrong("its credential is no key of ssh"));
                }
                (Credential::Key(_), false) => {
                    let why = "its credential is a key of ssh, and its address is not one of ssh";
                    return Err(wrong(why));
                }
            }
        }
        access.set(&settings, 0);
        Ok(access)
    }

    /// Makes ready what git in a build is let in with, where one of these repositories is: addresses by what the
    /// credentials are delivered as. Each repository has its own, and the rest of its host that of the first one there.
    /// What is no login is left out. The build's own variables have so many settings of git already, which stay.
    pub(crate) fn of_build(
        repositories: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, Vec<u8>>,
        settings_before: usize,
    ) -> Self {
        let mut access = Self::default();
        let (mut hosts, mut own) = (Vec::new(), Vec::new());
        for (number, (name, url)) in repositories.iter().enumerate() {
            let login = secrets.get(name).map(|value| read(value));
            if let (Some(Ok(Credential::Login { user, password })), Some(origin)) =
                (login, https_origin(url))
            {
                let helper = access.helper(number, (user, password));
                own.push((url.clone(), helper.clone()));
                hosts.push((origin, helper));
            }
        }
        // Each takes the place of those before it, so that the closest comes last, and of a host the first source's.
        own.sort_by_key(|(place, _)| place.len());
        let mut settings = Vec::new();
        for (place, helper) in hosts.into_iter().rev().chain(own) {
            sole_helper(&mut settings, &place, helper);
        }
        access.set(&settings, settings_before);
        access
    }

    /// A helper that tells git a login, which is in variables.
    fn helper(&mut self, number: usize, (user, password): (&str, &str)) -> String {
        let names = [
            format!("GRANGE_GIT_USER_{number}"),
            format!("GRANGE_GIT_PASSWORD_{number}"),
        ];
        let helper = format!(
            "!f() {{ if test \"$1\" = get; then printf 'username=%s\\npassword=%s\\n' \"${}\" \"${}\"; fi; }}; f",
            names[0], names[1]
        );
        for (name, value) in names.into_iter().zip([user, password]) {
            self.variables.insert(name, value.as_bytes().to_vec());
        }
        helper
    }

    /// Adds settings of git.
    fn set(&mut self, settings: &[(String, String)], before: usize) {
        if settings.is_empty() {
            return;
        }
        let mut add = |name: String, value: &str| {
            self.variables.insert(name, value.as_bytes().to_vec());
        };
        let count = before + settings.len();
        add("GIT_CONFIG_COUNT".to_owned(), &count.to_string());
        for (number, (name, value)) in (before..).zip(settings) {
            add(format!("GIT_CONFIG_KEY_{number}"), name);
            add(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
    }

    /// Whether a source has a key of ssh.
    pub(crate) fn has_key(&self, identifier: Option<&str>) -> bool {
        self.keys.contains_key(&identifier.map(str::to_owned))
    }

    /// A command for a source, with the agent of ssh that has its key, if it has one; what goes wrong with that
    /// is said in the file `complaint`, a word of the shell.
    pub(crate) fn with_key(
        &self,
        identifier: Option<&str>,
        (command, complaint): (String, &str),
    ) -> String {
        let Some(key) = self.keys.get(&identifier.map(str::to_owned)) else {
            return command;
        };
        format!(
            "eval \"$(ssh-agent -s)\" >/dev/null; \
             if printf '%s\\n' \"${key}\" | ssh-add -q - 2>{complaint}; then \
             export GIT_SSH_COMMAND='{SSH}'; {command}; else false; fi; \
             status=$?; ssh-agent -k >/dev/null 2>&1; (exit $status)"
        )
    }
}

/// Has git ask this helper at a place, and nobody else, who would also be told what was right, and could keep it.
fn sole_helper(settings: &mut Vec<(String, String)>, place: &str, helper: String) {
    let setting = format!("credential.{place}.helper");
    settings.push((setting.clone(), String::new()));
    settings.push((setting, helper));
}

/// Where the credential of an address of `https` counts; `None`: it is another's.
fn https_origin(url: &str) -> Option<String> {
    origin(url).filter(|origin| origin.starts_with("https://"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn secrets(of: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let of = of.iter();
        of.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    fn wanted(url: &str) -> FetchSources {
        FetchSources {
            primary: Some(GitSource::head_of(url.to_owned())),
            ..FetchSources::default()
        }
    }

    #[test]
    fn a_credential_is_a_login_a_token_or_a_key() {
        let login = |text: &str| match read(text.as_bytes()) {
            Ok(Credential::Login { user, password }) => format!("{user} {password}"),
            Ok(Credential::Key(_)) => "key".to_owned(),
            Err(why) => why.to_owned(),
        };
        assert_eq!(login("bob:a:bc"), "bob a:bc");
        assert_eq!(login("ghp_x\n"), "x-access-token ghp_x");
        assert_eq!(login("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), "key");
        // Another line would be another setting to git.
        assert!(login("bob:x\nhost=evil").contains("several lines"));
        assert!(login("bob:").contains("no password"));
        assert!(login("bob:abc").contains("too short"));
        assert!(login("{\"user\": \"bob\"}").contains("name one of its keys"));
    }

    #[test]
    fn a_login_counts_for_its_repository_only_and_is_in_no_setting() {
        let wanted = wanted("https://example.org:8443/team/a.git");
        let access = Access::to_fetch(&wanted, &secrets(&[("git-credential", "bob:hunter2")]));
        let access = access.map_err(|(.., why)| why).unwrap();
        let text = |name: &str| String::from_utf8(access.variables[name].clone()).unwrap();
        assert_eq!(text("GRANGE_GIT_PASSWORD_0"), "hunter2");
        let place = "credential.https://example.org:8443/team/a.git";
        assert_eq!(text("GIT_CONFIG_COUNT"), "3");
        assert_eq!(text("GIT_CONFIG_KEY_0"), format!("{place}.helper"));
        assert_eq!(
            text("GIT_CONFIG_VALUE_0"),
            "",
            "whoever else helps is not asked"
        );
        assert_eq!(text("GIT_CONFIG_KEY_1"), format!("{place}.helper"));
        for (name, value) in &access.variables {
            let value = String::from_utf8_lossy(value);
            let is_there = value.contains("hunter2");
            assert_eq!(is_there, name == "GRANGE_GIT_PASSWORD_0", "{name}={value}");
        }
        let command = access.with_key(None, ("git fetch".to_owned(), "e"));
        assert_eq!(command, "git fetch");
    }

    #[test]
    fn a_key_is_given_to_an_agent_and_only_for_its_own_source() {
        let mut wanted = wanted("git@example.org:a");
        let other = GitSource::head_of("git@example.org:b".to_owned());
        wanted.secondary.insert("lib".to_owned(), other);
        let key = "-----BEGIN KEY-----\nsecret\n-----END KEY-----";
        let access = Access::to_fetch(&wanted, &secrets(&[("git-credential", key)]));
        let access = access.map_err(|(.., why)| why).unwrap();
        let command = access.with_key(None, ("git fetch".to_owned(), "e"));
        assert!(command.contains("\"$GRANGE_GIT_KEY_0\" | ssh-add -q -"));
        assert!(!command.contains("secret"), "{command}");
        assert!(access.has_key(None) && !access.has_key(Some("lib")));
        let other = access.with_key(Some("lib"), ("git fetch".to_owned(), "e"));
        assert_eq!(other, "git fetch");
    }

    #[test]
    fn what_does_not_fit_the_address_is_said_and_not_used() {
        for (url, value) in [
            ("https://example.org/a", "-----BEGIN KEY-----\nx"),
            ("ssh://git@example.org/a", "bob:hunter2"),
            ("https://example.org/a", "a\nb"),
        ] {
            let wanted = wanted(url);
            let access = Access::to_fetch(&wanted, &secrets(&[("git-credential", value)]));
            let why = access.err().unwrap().2;
            assert!(why.starts_with("its credential"), "{why}");
            assert!(!why.contains("hunter2"));
        }
    }

    #[test]
    fn certificates_are_not_checked_of_that_repository_only() {
        let mut wanted = wanted("https://example.org/a");
        wanted.primary.as_mut().unwrap().insecure_ssl = true;
        let access = Access::to_fetch(&wanted, &BTreeMap::new());
        let access = access.map_err(|(.., why)| why).unwrap();
        let variables = &access.variables;
        assert_eq!(variables["GIT_CONFIG_COUNT"], b"1");
        let setting = b"http.https://example.org/a.sslVerify";
        assert_eq!(variables["GIT_CONFIG_KEY_0"], setting);
        assert_eq!(variables["GIT_CONFIG_VALUE_0"], b"false");
    }

    #[test]
    fn git_in_a_build_is_let_in_wherever_the_host_of_its_source_is() {
        let repositories = BTreeMap::from([
            (
                "git-credential".to_owned(),
                "https://example.org/a/b".to_owned(),
            ),
            (
                "git-credential:key".to_owned(),
                "git@example.org:x".to_owned(),
            ),
        ]);
        let secrets = secrets(&[
            ("git-credential", "token-1"),
            ("git-credential:key", "-----BEGIN KEY-----\nx"),
        ]);
        let access = Access::of_build(&repositories, &secrets, 0);
        assert_eq!(access.variables["GIT_CONFIG_COUNT"], b"4");
        let key = &access.variables["GIT_CONFIG_KEY_1"];
        assert_eq!(key, b"credential.https://example.org.helper");
        assert!(
            Access::of_build(&repositories, &BTreeMap::new(), 0)
                .variables
                .is_empty()
        );
        // What the build's own variables set stays.
        let access = Access::of_build(&repositories, &secrets, 2);
        assert_eq!(access.variables["GIT_CONFIG_COUNT"], b"6");
        assert_eq!(access.variables["GIT_CONFIG_KEY_3"], *key);
        assert!(!access.variables.contains_key("GIT_CONFIG_KEY_1"));
    }

    /// What the system's git is told of `url` with these variables; `None`: there is no git here.
    fn told(access: &Access, url: &str) -> Option<String> {
        let mut git = Command::new("git")
            .args(["credential", "fill"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .envs(access.variables.iter().map(|(name, value)| {
                let value = std::str::from_utf8(value).unwrap();
                (name, value)
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut asks = git.stdin.take().unwrap();
        writeln!(asks, "url={url}\n").unwrap();
        drop(asks);
        let told = String::from_utf8(git.wait_with_output().unwrap().stdout).unwrap();
        let mut lines = told.lines();
        let password = lines.find_map(|line| line.strip_prefix("password="));
        Some(password.unwrap_or("nothing").to_owned())
    }

    fn check_told(access: &Access, expected: &[(&str, &str)]) {
        for (url, password) in expected {
            if let Some(told) = told(access, url) {
                assert_eq!(told, *password, "{url}");
            }
        }
    }

    #[test]
    fn each_repository_has_its_own_credential_in_a_build_and_the_rest_of_a_host_the_first_ones() {
        let repositories = BTreeMap::from(
            [
                ("git-credential", "https://example.org/team/a"),
                ("git-credential:deep", "https://example.org/team/a/deep"),
                ("git-credential:lib", "https://example.org/lib.git"),
                ("git-credential:other", "https://other.example.org/x"),
            ]
            .map(|(name, url)| (name.to_owned(), url.to_owned())),
        );
        let secrets = secrets(&[
            ("git-credential", "first"),
            ("git-credential:deep", "deeper"),
            ("git-credential:lib", "bob:second"),
            ("git-credential:other", "elsewhere"),
        ]);
        check_told(
            &Access::of_build(&repositories, &secrets, 0),
            &[
                ("https://example.org/team/a", "first"),
                ("https://example.org/team/a/deep", "deeper"),
                ("https://example.org/lib.git", "second"),
                ("https://example.org/submodule", "first"),
                ("https://other.example.org/y", "elsewhere"),
                ("https://example.com/team/a", "nothing"),
                ("http://example.org/team/a", "nothing"),
            ],
        );
    }

    #[test]
    fn what_is_fetched_has_its_own_credential_and_nothing_else_has() {
        let mut wanted = wanted("https://example.org/team/a");
        for (name, url) in [
            ("lib", "https://example.org/team/a/deep"),
            ("open", "https://example.org/open"),
            ("below", "https://example.org/team/a/open"),
            ("branch", "https://example.org/team/a/"),
        ] {
            let git = GitSource::head_of(url.to_owned());
            wanted.secondary.insert(name.to_owned(), git);
        }
        let secrets = secrets(&[
            ("git-credential", "first"),
            ("git-credential:lib", "second"),
        ]);
        let access = Access::to_fetch(&wanted, &secrets);
        check_told(
            &access.map_err(|(.., why)| why).unwrap(),
            &[
                ("https://example.org/team/a", "first"),
                ("https://example.org/team/a/deep", "second"),
                ("https://example.org/open", "nothing"),
                ("https://example.org/team/a/open", "nothing"),
                ("https://example.org/team", "nothing"),
            ],
        );
    }
}
