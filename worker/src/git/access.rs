//! What git is let in with, and where.
//!
//! Pure. A credential is in the environment of git and nowhere else: not in addresses, arguments and settings that
//! are written down. git asks for it by a helper that counts for one address only, so that redirects and
//! submodules that lead elsewhere get nothing.

use std::collections::BTreeMap;

use protocol::{
    git::{GitSource, credential_variable, origin},
    job::FetchSources,
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
        for (number, (identifier, git)) in primary.chain(secondary).enumerate() {
            if git.insecure_ssl {
                let checked = format!("http.{}.sslVerify", git.url);
                settings.push((checked, "false".to_owned()));
            }
            let Some(value) = secrets.get(&credential_variable(identifier)) else {
                continue;
            };
            let wrong = |why| (identifier, git, why);
            let is_ssh = git.protocol() == Ok("ssh");
            match (read(value).map_err(wrong)?, is_ssh) {
                (Credential::Login { user, password }, false) => {
                    access.let_in(&mut settings, (&git.url, number), (user, password));
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
    /// credentials are delivered as. What is no login is left out. The build's own variables have so many settings of
    /// git already, which stay.
    pub(crate) fn of_build(
        repositories: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, Vec<u8>>,
        settings_before: usize,
    ) -> Self {
        let mut access = Self::default();
        let mut settings = Vec::new();
        // Of several sources on one host the first counts, which git is told last.
        for (number, (name, url)) in repositories.iter().enumerate().rev() {
            let login = secrets.get(name).map(|value| read(value));
            if let (Some(Ok(Credential::Login { user, password })), Some(origin)) =
                (login, https_origin(url))
            {
                access.let_in(&mut settings, (&origin, number), (user, password));
            }
        }
        access.set(&settings, settings_before);
        access
    }

    /// Lets git in at `place`.
    fn let_in(
        &mut self,
        settings: &mut Vec<(String, String)>,
        (place, number): (&str, usize),
        (user, password): (&str, &str),
    ) {
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
        let setting = |name: &str| format!("credential.{place}.{name}");
        // Nobody else is asked, or told what was right.
        settings.push((setting("helper"), String::new()));
        settings.push((setting("helper"), helper));
        settings.push((setting("useHttpPath"), "true".to_owned()));
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

/// Where the credential of an address of `https` counts; `None`: it is another's.
fn https_origin(url: &str) -> Option<String> {
    origin(url).filter(|origin| origin.starts_with("https://"))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(login("bob:a:b"), "bob a:b");
        assert_eq!(login("ghp_x\n"), "x-access-token ghp_x");
        assert_eq!(login("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), "key");
        // Another line would be another setting to git.
        assert!(login("bob:x\nhost=evil").contains("several lines"));
        assert!(login("bob:").contains("no password"));
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
        let key = &access.variables["GIT_CONFIG_KEY_1"];
        assert_eq!(key, b"credential.https://example.org.helper");
        assert_eq!(access.variables["GIT_CONFIG_COUNT"], b"3");
        assert!(
            Access::of_build(&repositories, &BTreeMap::new(), 0)
                .variables
                .is_empty()
        );
        // What the build's own variables set stays.
        let access = Access::of_build(&repositories, &secrets, 2);
        assert_eq!(access.variables["GIT_CONFIG_COUNT"], b"5");
        assert_eq!(access.variables["GIT_CONFIG_KEY_3"], *key);
        assert!(!access.variables.contains_key("GIT_CONFIG_KEY_1"));
    }

    #[test]
    fn of_two_sources_on_one_host_the_first_ones_credential_counts_in_a_build() {
        let url = |name: &str| format!("https://example.org/{name}");
        let names = ["git-credential", "git-credential:lib"];
        let repositories = names.map(|name| (name.to_owned(), url(name))).into();
        let secrets = secrets(&[(names[0], "ann:first"), (names[1], "bob:second")]);
        let access = Access::of_build(&repositories, &secrets, 0);
        let text = |name: &str| String::from_utf8(access.variables[name].clone()).unwrap();
        // git empties its list at each, so that the last one counts.
        assert_eq!(text("GIT_CONFIG_COUNT"), "6");
        let last = text("GIT_CONFIG_VALUE_4");
        assert!(last.contains("$GRANGE_GIT_PASSWORD_0"), "{last}");
        assert_eq!(text("GRANGE_GIT_PASSWORD_0"), "first");
    }
}
