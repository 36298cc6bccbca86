//! What git is told to fetch a source: which references a version may mean, which commands, in which
//! environment; and what its failures mean.
//!
//! Pure. The commands are for a shell in the sandbox, and everything that comes from outside is quoted in
//! them and stands behind `--`.

mod access;

use std::path::Path;

use protocol::git::{GitSource, is_commit};

pub(crate) use self::access::{Access, Credential, read};
use crate::word;

/// How many bytes of git's complaints go into a message: the last lines say what is wrong.
const COMPLAINT_BYTES_MAX: usize = 1024;
/// How short the beginning of a commit's name may be.
const SHORT_COMMIT_MIN: usize = 7;

/// What a version may mean.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Meaning {
    /// The references that it may be, the most likely first; none: it is a commit.
    pub(crate) references: Vec<String>,
    /// The commit, or the beginning of its name, that is to be checked out of them; `None`: what the
    /// reference is.
    pub(crate) commit: Option<String>,
    /// Whether it may be a commit if no such reference is there.
    pub(crate) may_be_commit: bool,
}

/// What a version may mean; `None` is the head of the repository.
pub(crate) fn meaning(version: Option<&str>) -> Meaning {
    let Some(version) = version else {
        return Meaning {
            references: vec!["HEAD".to_owned()],
            commit: None,
            may_be_commit: false,
        };
    };
    if let Some((reference, commit)) = version.split_once("^{") {
        return Meaning {
            references: references(reference),
            commit: Some(commit.trim_end_matches('}').to_owned()),
            may_be_commit: false,
        };
    }
    if is_commit(version) {
        return Meaning {
            references: Vec::new(),
            commit: Some(version.to_owned()),
            may_be_commit: true,
        };
    }
    let is_short =
        SHORT_COMMIT_MIN <= version.len() && version.bytes().all(|b| b.is_ascii_hexdigit());
    Meaning {
        references: references(version),
        commit: None,
        may_be_commit: is_short,
    }
}

fn references(name: &str) -> Vec<String> {
    if name.starts_with("refs/") || name == "HEAD" {
        return vec![name.to_owned()];
    }
    let mut references = Vec::new();
    if let Some(number) = name.strip_prefix("pr/") {
        // GitHub's name of a pull request, and GitLab's.
        references.push(format!("refs/pull/{number}/head"));
        references.push(format!("refs/merge-requests/{number}/head"));
    }
    references.push(format!("refs/heads/{name}"));
    references.push(format!("refs/tags/{name}"));
    references
}

/// Of the references that a version may be, the first that git has listed.
pub(crate) fn chosen<'a>(references: &'a [String], listed: &str) -> Option<&'a str> {
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(_, name)| name)
        .collect();
    let found = references
        .iter()
        .find(|wanted| names.contains(&wanted.as_str()));
    found.map(String::as_str)
}

/// Where the fetching of one source leaves things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// The files of the source.
    pub(crate) tree: &'a Path,
    /// What git printed that was asked for.
    pub(crate) listed: &'a Path,
    /// What git complained of.
    pub(crate) complaint: &'a Path,
    /// Whether the source has a key of ssh, which its submodules must not have.
    pub(crate) has_key: bool,
}

impl Places<'_> {
    /// Asks which of the references there are; exits with 2 if there are none.
    pub(crate) fn list(&self, git: &GitSource, references: &[String]) -> String {
        let references: Vec<String> = references.iter().map(|name| word::of_text(name)).collect();
        format!(
            "git ls-remote --quiet --exit-code -- {} {} >{} 2>{}",
            word::of_text(&git.url),
            references.join(" "),
            word::of_path(self.listed),
            word::of_path(self.complaint),
        )
    }

    /// Fetches a reference and checks it out, or `commit` of it.
    pub(crate) fn fetch(&self, git: &GitSource, reference: &str, commit: Option<&str>) -> String {
        let depth = git.shallow().filter(|_| commit.is_none());
        let depth = depth
            .map(|depth| format!("--depth={depth} --no-tags "))
            .unwrap_or_default();
        let specification = word::of_text(&format!("+{reference}"));
        let fetch =
            format!("fetch --quiet --no-recurse-submodules {depth}-- origin {specification}");
        self.checked_out(git, &[fetch], commit.unwrap_or("FETCH_HEAD"))
    }

    /// Fetches everything and checks a commit out. One that no branch and no tag leads to is asked for by
    /// its name, which not every server answers.
    pub(crate) fn fetch_commit(&self, git: &GitSource, commit: &str) -> String {
        let all = "fetch --quiet --no-recurse-submodules --tags -- origin '+refs/heads/*:refs/remotes/origin/*'";
        let by_name = format!(
            "cat-file -e {0}^{{commit}} 2>/dev/null || git -C {1} fetch --quiet --no-recurse-submodules -- \
             origin {0}",
            commit,
            word::of_path(self.tree),
        );
        self.checked_out(git, &[all.to_owned(), by_name], commit)
    }

    fn checked_out(&self, git: &GitSource, fetches: &[String], what: &str) -> String {
        let (tree, url) = (word::of_path(self.tree), word::of_text(&git.url));
        let mut steps = vec![
            format!("rm -rf -- {tree}"),
            format!("git init --quiet -- {tree}"),
            format!("git -C {tree} remote add -- origin {url}"),
        ];
        let fetches = fetches
            .iter()
            .map(|fetch| format!("{{ git -C {tree} {fetch}; }}"));
        steps.extend(fetches);
        // Not with `--`, behind which git would look for files; it is a commit's name or git's own word.
        steps.push(format!("git -C {tree} checkout --quiet --detach {what}"));
        if git.submodules {
            let depth = git.shallow().map(|depth| format!(" --depth {depth}"));
            let depth = depth.unwrap_or_default();
            let without_key = match self.has_key {
                true => "env -u SSH_AUTH_SOCK GIT_SSH_COMMAND='ssh -oBatchMode=yes' ",
                false => "",
            };
            steps.push(format!(
                "{without_key}git -C {tree} submodule --quiet update --init --recursive{depth}"
            ));
        }
        let complaint = word::of_path(self.complaint);
        format!("{{ {}; }} >{complaint} 2>&1", steps.join(" && "))
    }

    /// The file of complaints as a word.
    pub(crate) fn complaint_word(&self) -> String {
        word::of_path(self.complaint)
    }

    /// A word that expands to the commit that is checked out.
    pub(crate) fn commit(&self) -> String {
        format!(
            "$(git -C {} rev-parse --verify HEAD 2>/dev/null)",
            word::of_path(self.tree)
        )
    }
}

/// A word that expands to what is in a file, or to its end.
pub(crate) fn content(file: &Path) -> String {
    format!("$(tail -c 8192 {} 2>/dev/null)", word::of_path(file))
}

/// The environment of git: it asks nobody anything, reads no settings of the build's, and speaks only the
/// protocols that the worker's owner lets it.
pub(crate) fn environment(protocols: &[String]) -> [(&'static str, String); 9] {
    [
        ("GIT_ALLOW_PROTOCOL", protocols.join(":")),
        ("GIT_ASKPASS", "/bin/false".to_owned()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
        ("GIT_HTTP_LOW_SPEED_LIMIT", "1000".to_owned()),
        ("GIT_HTTP_LOW_SPEED_TIME", "60".to_owned()),
        ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes".to_owned()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("LC_ALL", "C".to_owned()),
        ("SSH_ASKPASS", "/bin/false".to_owned()),
    ]
}

/// Which source, as messages say it: the primary one has no identifier.
fn which(identifier: Option<&str>) -> String {
    match identifier {
        None => "primary source".to_owned(),
        Some(identifier) => format!("secondary source {identifier}"),
    }
}

/// What is said of a version that the repository does not have.
pub(crate) fn not_found(identifier: Option<&str>, version: Option<&str>) -> String {
    let version = version.unwrap_or("HEAD");
    format!(
        "reference not found for {} and source version {version}",
        which(identifier)
    )
}

/// What is said of a repository that cannot be fetched.
pub(crate) fn failed(identifier: Option<&str>, git: &GitSource, complaint: &str) -> String {
    let mut start = complaint.len().saturating_sub(COMPLAINT_BYTES_MAX);
    while !complaint.is_char_boundary(start) {
        start += 1;
    }
    let lines: Vec<&str> = complaint[start..]
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    format!(
        "Git clone failed: {} of {}: {}",
        git.url,
        which(identifier),
        lines.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_version_is_a_branch_before_a_tag_before_a_commit() {
        let of = |version: &str| {
            let meaning = meaning(Some(version));
            (
                meaning.references.join(" "),
                meaning.commit,
                meaning.may_be_commit,
            )
        };
        let branch_or_tag = "refs/heads/main refs/tags/main".to_owned();
        assert_eq!(of("main"), (branch_or_tag.clone(), None, false));
        assert_eq!(
            of("refs/pull/7/head"),
            ("refs/pull/7/head".to_owned(), None, false)
        );
        assert_eq!(of(COMMIT), (String::new(), Some(COMMIT.to_owned()), true));
        assert!(
            of("0123456").2,
            "it may be the beginning of a commit's name"
        );
        assert!(of("pr/7").0.starts_with("refs/pull/7/head "));
        let both = format!("main^{{{COMMIT}}}");
        assert_eq!(of(&both), (branch_or_tag, Some(COMMIT.to_owned()), false));
        assert_eq!(meaning(None).references, ["HEAD"]);
    }

    #[test]
    fn of_what_git_lists_only_the_whole_name_counts() {
        let references = references("main");
        let listed =
            format!("{COMMIT}\trefs/remotes/origin/refs/heads/main\n{COMMIT}\trefs/tags/main\n");
        assert_eq!(chosen(&references, &listed), Some("refs/tags/main"));
        assert_eq!(chosen(&references, ""), None);
    }

    #[test]
    fn what_comes_from_outside_is_one_word_behind_a_double_dash() {
        let places = Places {
            tree: Path::new("/a b"),
            listed: Path::new("/list"),
            complaint: Path::new("/err"),
            has_key: false,
        };
        let git = GitSource::head_of("https://x/'; touch /y; '".to_owned());
        let list = places.list(&git, &["HEAD".to_owned()]);
        assert!(
            list.contains(r"-- 'https://x/'\''; touch /y; '\''' 'HEAD' >"),
            "{list}"
        );
        let fetch = places.fetch(&git, "refs/heads/a'b", None);
        assert!(fetch.contains(r"-- origin '+refs/heads/a'\''b'"), "{fetch}");
        assert!(fetch.contains("git init --quiet -- '/a b'"), "{fetch}");
    }

    #[test]
    fn a_depth_is_for_references_and_not_for_commits() {
        let places = Places {
            tree: Path::new("/t"),
            listed: Path::new("/l"),
            complaint: Path::new("/e"),
            has_key: false,
        };
        let git = GitSource {
            depth: Some(1),
            submodules: true,
            ..GitSource::head_of("https://x/y".to_owned())
        };
        let shallow = places.fetch(&git, "refs/heads/main", None);
        assert!(shallow.contains("fetch --quiet --no-recurse-submodules --depth=1 --no-tags -- "));
        assert!(shallow.contains("submodule --quiet update --init --recursive --depth 1"));
        let of_commit = places.fetch(&git, "refs/heads/main", Some(COMMIT));
        assert!(!of_commit.contains("--depth=1"), "{of_commit}");
        assert!(!places.fetch_commit(&git, COMMIT).contains("--depth=1"));
    }

    #[test]
    fn failures_are_said_as_the_reference_has_them() {
        assert_eq!(
            not_found(None, Some("nope")),
            "reference not found for primary source and source version nope"
        );
        let git = GitSource::head_of("https://x/y".to_owned());
        let said = failed(Some("lib"), &git, "fatal: no such host\n\n");
        assert_eq!(
            said,
            "Git clone failed: https://x/y of secondary source lib: fatal: no such host"
        );
    }
}
